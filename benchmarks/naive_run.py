"""One run as a script of one's own would make it: data prepared, pretrained model judged, a plain loop, judged again.

    python benchmarks/naive_run.py --study study.json --run ID --folder DIR

Nothing is shared with any other run. What the network, the data and the judgement are comes from the library; the loop is the
plainest correct one for one device without accumulation.
"""

import argparse
import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import torch
from torch import nn

from ablation.evaluation import evaluate
from ablation.files import write_json
from ablation.parts import Part
from ablation.resolved import load_run
from ablation.sweep import Run
from ablation.systems import load_system, prepare
from ablation.systems.base import System
from ablation.training.model import for_training
from ablation.training.order import Split, loader
from ablation.training.randomness import make_deterministic, seed_everything
from ablation.training.schedules import learning_rate
from ablation.training.strategy import save_trained, trained_of

CPU = torch.device("cpu")


def prepared(part: Part, system: str, folder: Path) -> Path:
    """The folder of ``part``, made with all it needs."""
    needs = [prepared(need, system, folder) for need in part.needs]
    out = folder / part.id
    if not out.exists():
        out.mkdir(parents=True)
        prepare(system, part, needs, out)
    return out


def trained(run: Run, system: System, weights: dict[str, Path], data: list[Path]) -> nn.Module:
    """The network of ``run`` after all its steps."""
    seed_everything(run.axes["seed"])
    model = for_training(system, run, weights, CPU)
    parameters, training = [p for p in model.parameters() if p.requires_grad], run.settings.training
    optimizer = torch.optim.AdamW(
        parameters, run.strategy.lr, betas=training.betas, eps=training.eps, weight_decay=training.weight_decay, fused=True
    )
    samples, split = system.samples(data, train=True), Split(run.axes["batch"])
    batches = loader(samples, split, run.axes["seed"], 0, training.steps, workers=0, pin=False)
    for step, batch in zip(count(), batches, strict=False):
        optimizer.param_groups[0]["lr"] = learning_rate(step, training.steps, run.strategy.lr, training)
        for name in system.objectives:
            system.objective(model, batch, name).loss.backward()
        nn.utils.clip_grad_norm_(parameters, training.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model


def main() -> None:
    """The whole run; ``metrics.json`` in its folder says how it ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    make_deterministic()
    run = load_run(args.study, args.run)
    system, precision = load_system(run.settings), run.axes["precision"]
    weights = {name: Path(path) for name, path in run.settings.weight_files().items()}
    data = [prepared(part, run.settings.system, args.folder / "data") for part in run.settings.parts()]
    before = evaluate(system, precision, weights, None, data, args.folder / "before", CPU)
    model = trained(run, system, weights, data)
    save_trained(model, trained_of(model), args.folder)
    after = evaluate(system, precision, weights, args.folder, data, args.folder / "after", CPU)
    write_json(args.folder / "metrics.json", {"metrics_before": before["metrics"], "metrics": after["metrics"]})


if __name__ == "__main__":
    main()
