"""Reading an adapter that may be anybody's: LoRA as the workflow writes it, and nothing else that PEFT knows."""

from pathlib import Path

from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from ablation.errors import UserError
from ablation.outside import MIB, read_json
from ablation.systems.weights import check_shapes, read_weights

CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # PEFT's names
TOLD = ("r", "lora_alpha", "lora_dropout", "target_modules")  # what we say of an adapter
UNUSED = ("base_model_name_or_path", "auto_mapping", "peft_version", "revision", "task_type", "inference_mode")
"""What PEFT writes of an adapter that does not change what it computes."""
ABSENT = "  train the run again"


def with_adapter(model: nn.Module, folder: Path) -> nn.Module:
    """``model`` with the adapter in ``folder``: UserError where it is no plain LoRA of this model.

    PEFT itself would follow what the folder says: to pickles, modules of Python, patterns without end, other models.
    """
    state = read_weights(folder / ADAPTER_WEIGHTS, ABSENT)
    config = _adapter_config(folder / CONFIG)
    ranks = {value.shape[0] for name, value in state.items() if name.endswith("lora_A.weight") and value.ndim}
    if ranks != {config.r}:
        raise UserError(f"{folder}: an adapter of rank {config.r} in {CONFIG}, of {sorted(ranks)} in {ADAPTER_WEIGHTS}")
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise UserError(f"{folder}: an adapter to another model ({error})") from None
    check_shapes(folder / ADAPTER_WEIGHTS, state, get_peft_model_state_dict(adapted), all_of_them=True)
    set_peft_model_state_dict(adapted, state)
    return adapted


def _adapter_config(path: Path) -> LoraConfig:
    """What an adapter is, from a file that may say anything."""
    content, plain = read_json(path, MIB), LoraConfig().to_dict()
    if not isinstance(content, dict) or not set(TOLD) <= set(content):
        raise UserError(f"{path}: describes no adapter; it must say {', '.join(TOLD)}")
    for name, value in content.items():
        if name not in (*TOLD, *UNUSED) and value != plain.get(name):
            raise UserError(f"{path}: {name} = {str(value)[:60]}: only plain LoRA is read, as the workflow writes it")
    rank, alpha, dropout, targets = (content[name] for name in TOLD)
    numbers = type(rank) is int and rank > 0 and type(alpha) in (int, float) and type(dropout) in (int, float)
    names = isinstance(targets, list) and targets and all(isinstance(name, str) for name in targets)
    if not numbers or not names or not (0 < alpha < float("inf") and 0 <= dropout <= 1):
        raise UserError(f"{path}: {', '.join(TOLD)} must be three numbers and a list of modules")
    return LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets)
