"""Applying a strategy: which parameters are trained, through PEFT or in full, and how they are saved.

PEFT takes seconds to import, and what has no adapter does without it.
"""

import hashlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ablation.files import remove_folder, replace_folder, replacing, usual_mode
from ablation.settings import LoraSettings
from ablation.study import Strategy
from ablation.systems.weights import check_shapes, read_weights
from ablation.training.host import fetching
from ablation.training.targets import adaptable_modules, modules

ADAPTER, FULL_WEIGHTS = "adapter", "model.safetensors"
ABSENT = "  train the run again"
PIECE = 2**24  # bytes


def apply_strategy(model: nn.Module, strategy: Strategy, rank: int | None, lora: LoraSettings) -> nn.Module:
    """Freeze ``model`` but for what ``strategy`` trains; with LoRA, wrapped by PEFT.

    A parameter that the network itself freezes stays so.
    """
    trainable = {parameter for parameter in model.parameters() if parameter.requires_grad}
    model.requires_grad_(False)
    if strategy.train.full is not None:
        for name in modules(model, strategy.train.full):
            for parameter in trainable.intersection(model.get_submodule(name).parameters(recurse=False)):
                parameter.requires_grad_(True)
        return model
    from peft import LoraConfig, get_peft_model

    alpha = lora.alpha_per_rank * rank
    config = LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,
        lora_dropout=lora.dropout,
        target_modules=adaptable_modules(model, strategy.train.lora),
    )
    return get_peft_model(model, config)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """All parameters, those held as codes and those in host memory too; and the trainable ones."""
    in_host = sum(weight.numel() for found in fetching(model) for weight in found.weights.values())
    as_codes = sum(getattr(module, "quantised", 0) for module in model.modules())
    return {
        "total": sum(p.numel() for p in model.parameters()) + in_host + as_codes,
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def trained_of(model: nn.Module) -> dict[str, Tensor]:
    """What is trained of a model that a process has whole, by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def digest_of(trained: dict[str, Tensor]) -> str:
    """A digest of the values, bit by bit, read in pieces: a copy of the whole may not fit beside it."""
    found = hashlib.sha256()
    for name, value in trained.items():
        found.update(name.encode())
        for piece in value.reshape(-1).view(torch.uint8).split(PIECE):
            found.update(piece.cpu().numpy())
    return found.hexdigest()


def save_trained(model: nn.Module, trained: dict[str, Tensor], folder: Path) -> str:
    """Write the result into the run's ``folder``: a standard PEFT adapter, or the weights that were trained in full.

    ``trained``: the values, by the model's names.
    """
    if hasattr(model, "peft_config"):  # wrapped by PEFT
        with replace_folder(folder / ADAPTER) as temporary:
            model.save_pretrained(str(temporary), state_dict=trained)
            _order_targets(temporary / "adapter_config.json")
            (temporary / "README.md").unlink()  # PEFT's, a form to fill in; the card comes with the evaluation
            usual_mode(temporary / "adapter_model.safetensors")
        return ADAPTER
    with replacing(folder / FULL_WEIGHTS) as temporary:
        save_file({name: value.contiguous() for name, value in trained.items()}, temporary)
    return FULL_WEIGHTS


def _order_targets(path: Path) -> None:
    """The modules in a fixed order: PEFT keeps a set and writes it in the order of the day."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")


def remove_trained(folder: Path) -> None:
    """Remove what an earlier run left in ``folder``, so that it cannot be taken for the result of this one."""
    for left in (*folder.glob(f".{FULL_WEIGHTS}.*"), *folder.glob(".tmp*")):  # killed as it saved; the latter by safetensors
        left.unlink(missing_ok=True)
    remove_folder(folder / ADAPTER)
    (folder / FULL_WEIGHTS).unlink(missing_ok=True)


def load_trained(model: nn.Module, folder: Path) -> nn.Module:
    """``model`` with what a run in ``folder`` trained, which alone requires gradients, as it did then."""
    if (folder / ADAPTER).is_dir():
        from ablation.training.adapters import with_adapter

        return with_adapter(model, folder / ADAPTER)
    trained = read_weights(folder / FULL_WEIGHTS, ABSENT)
    check_shapes(folder / FULL_WEIGHTS, trained, {name: model.state_dict().get(name) for name in trained})
    model.load_state_dict(trained, strict=False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return model
