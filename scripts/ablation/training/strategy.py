"""Applying a strategy: which parameters are trained, through PEFT or in full, and how they are saved."""

import shutil
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from ablation.files import replace_folder
from ablation.settings import LoraSettings
from ablation.study import Strategy
from ablation.training.targets import adaptable_modules, modules

ADAPTER, FULL_WEIGHTS = "adapter", "model.safetensors"


def apply_strategy(model: nn.Module, strategy: Strategy, rank: int | None, lora: LoraSettings) -> nn.Module:
    """Freeze ``model`` but for what ``strategy`` trains; with LoRA, wrapped by PEFT."""
    model.requires_grad_(False)
    if strategy.train.full is not None:
        for name in modules(model, strategy.train.full):
            for parameter in model.get_submodule(name).parameters(recurse=False):
                parameter.requires_grad_(True)
        return model
    alpha = lora.alpha_per_rank * rank
    config = LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,
        lora_dropout=lora.dropout,
        target_modules=adaptable_modules(model, strategy.train.lora),
    )
    return get_peft_model(model, config)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """All parameters and the trainable ones."""
    return {
        "total": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }


def save_trained(model: nn.Module, folder: Path) -> str:
    """Write the result into the run's ``folder``: a standard PEFT adapter, or the whole state of a fully trained model."""
    if isinstance(model, PeftModel):
        with replace_folder(folder / ADAPTER) as temporary:
            model.save_pretrained(str(temporary))
        return ADAPTER
    temporary = folder / f".{FULL_WEIGHTS}"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, temporary)
    temporary.replace(folder / FULL_WEIGHTS)
    return FULL_WEIGHTS


def remove_trained(folder: Path) -> None:
    """Remove what an earlier run left in ``folder``, so that it cannot be taken for the result of this one."""
    shutil.rmtree(folder / ADAPTER, ignore_errors=True)
    (folder / FULL_WEIGHTS).unlink(missing_ok=True)


def load_trained(model: nn.Module, folder: Path) -> nn.Module:
    """``model`` with what a run in ``folder`` trained."""
    if (folder / ADAPTER).is_dir():
        return PeftModel.from_pretrained(model, str(folder / ADAPTER))
    model.load_state_dict(load_file(folder / FULL_WEIGHTS))
    return model
