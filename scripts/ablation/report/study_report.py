"""The report of a study: which tables and figures it has, and in which order."""

import csv
from collections.abc import Sequence
from pathlib import Path

from ablation.report.alike import decays_in_force, without_difference
from ablation.report.baselines import missing
from ablation.report.content import Panels, Report, Section
from ablation.report.details import run_details
from ablation.report.figure import Figure
from ablation.report.figures.axis_curves import axis_curves
from ablation.report.figures.before_after import before_after
from ablation.report.figures.components import components
from ablation.report.figures.loss_curves import loss_curves
from ablation.report.figures.panels import panels_of
from ablation.report.figures.predicted_measured import predicted_measured
from ablation.report.figures.quality_memory import quality_memory
from ablation.report.figures.throughput import throughput
from ablation.report.origins import origin_table
from ablation.report.results import Results
from ablation.report.table import Table
from ablation.report.tables.claims import claim_table
from ablation.report.tables.components import component_table
from ablation.report.tables.costs import cost_table
from ablation.report.tables.differences import difference_table
from ablation.report.tables.effects import effect_table
from ablation.report.tables.items import item_table
from ablation.report.tables.ladder import ladder_table
from ablation.report.tables.main import main_table, metrics_table
from ablation.report.tables.memory import memory_table
from ablation.report.tables.pareto import pareto_table
from ablation.report.tables.recommended import recommended_table
from ablation.report.tables.runs import run_table
from ablation.report.tables.splits import split_table
from ablation.report.words import summary
from ablation.study import Study
from ablation.yamlfile import dump_yaml

Blocks = Sequence[Table | Figure | Panels | None]


def report_of(results: Results, name: str, folder: Path) -> Report:
    """The report of the study ``name``: of its collected runs, and of what lies beside them in its ``folder``.

    That is the verdicts on claims, the comparison with a recommended configuration, the memory ladder, and pictures.
    """
    study = results.study
    return Report(
        name,
        study.title or name,
        study.scale,
        summary(results),
        [section for section in _sections(results, folder) if section.blocks or section.text],
        run_details(results, name, folder),
        dump_yaml(study.model_dump(mode="json", exclude_none=True)),
    )


def _sections(results: Results, folder: Path) -> list[Section]:
    study = results.study
    return [
        _section("results", "Results", main_table(results), quality_memory(results), metrics_table(results)),
        _section("differences", "Against the baseline", difference_table(results), text=missing(results)),
        _section("axes", "What each axis does", effect_table(results), axis_curves(results), text=_of_axes(results)),
        _section("costs", "What it costs", cost_table(results), pareto_table(results), throughput(results)),
        _section(
            "memory",
            "Memory",
            memory_table(results),
            predicted_measured(results),
            ladder_table(results, folder),
            component_table(results),
            components(results),
        ),
        _section("splits", "One effective batch, different ways", split_table(results)),
        _section("training", "Training", loss_curves(results)),
        _section("items", "By held-out item", item_table(results), before_after(results)),
        _section("pictures", "Pictures", panels_of(results, folder)),
        _section("claims", "Published claims", _claims(study, folder)),
        _section("recommended", "Against the recommended configuration", recommended_table(study, folder)),
        _section("runs", "Runs", run_table(results)),
        _section("origins", "What ran where", origin_table(results)),
    ]


def _of_axes(results: Results) -> list[str]:
    return [*without_difference(results), *decays_in_force(results)]


def _section(name: str, title: str, *blocks: Table | Figure | Panels | None, text: Sequence[str] = ()) -> Section:
    return Section(name, title, text, blocks=[block for block in blocks if block is not None])


def _claims(study: Study, folder: Path) -> Table | None:
    """The published claims; None for a study that names none, or whose verdicts are not there."""
    path = folder / "claims.csv"
    if study.claims is None or not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        return claim_table(list(csv.DictReader(file)))
