# What is made again: found by content, whatever Snakemake remembers and whatever times files have; and what a person is told of it.
from ablation.outlook import outlook
from ablation.planned import is_current, kept_key, key_of
from ablation.seal import outdated
from ablation.standing import InputFolders, base_holds, standing_of

# What is made anew since its content is of another study, other weights or other data, whatever Snakemake remembers.
STALE = set()


def remake(path, stale):
    """Have Snakemake make ``path``, where it is asked for, if it is ``stale``."""
    if not workflow.is_main_process:
        return
    if stale and path not in workflow.dag.forcefiles:
        STALE.add(path)
        workflow.dag.forcefiles.add(path)
    elif not stale and path in STALE:
        STALE.remove(path)
        workflow.dag.forcefiles.remove(path)


@cache
def plan_key(study):
    """What the plan is made from, and all that is made from it."""
    claims = {
        name: claim.model_dump(mode="json") for name, claim in CLAIMS[study].items()
    }
    against = RECOMMENDED[study] and RECOMMENDED[study].model_dump(mode="json")
    said = [STUDIES[study].model_dump(mode="json"), card_files(), claims, against]
    return key_of(said, outside_files(study))


def plan_if_stale(study):
    """No input: a look at whether the plan is that of the study as it is now."""
    plan = Path(plan_file(study))
    remake(str(plan), not is_current(plan, plan_key(study)))
    return []


@cache
def say_outlook(study):
    """Tell a person, once, what the runs of a study come to; before there is a plan, as if all of them fit."""
    if not workflow.is_main_process:
        return
    plan = Path(plan_file(study))
    runs, current = RUNS[study], is_current(plan, plan_key(study))
    verdicts = verdicts_of(plan) if current else dict.fromkeys(runs, SUBMITTED[0])
    before = "" if current else "before the plan, which may leave some out: "
    ahead = outlook(
        study, runs, verdicts, SUBMITTED, lambda run: stands(folder(study), run.id)
    )
    outside = {path for run in runs.values() for path in run.settings.outside()}
    missing = ", ".join(sorted(outside - set(outside_files(study))))
    absent = f"  missing: {missing}\n" if missing else ""
    sys.stderr.write(f"{before}{ahead}\n{absent}")


def plans_told(wildcards):
    """The plans of all studies; and a word on each study."""
    for study in STUDIES:
        say_outlook(study)
    return [plan_file(study) for study in STUDIES]


def results_told(wildcards):
    """The results of all runs that the plan sends; and a word on the study."""
    if wildcards.study in STUDIES:
        say_outlook(wildcards.study)
    runs = planned(wildcards, SUBMITTED)
    return [
        f"results/{wildcards.scale}/{wildcards.study}/runs/{run}/metrics.json"
        for run in runs
    ]


def inputs_of_scale(scale):
    """Where what runs read is."""
    return InputFolders(Path("results", scale, "data"), Path("results/hashes"))


@cache
def stands(of_study, run):
    """Where a run stands at the start; ``of_study``: the folder of the study's results."""
    _, scale, study = of_study.split("/", 2)
    settled = RUNS[study.partition("/")[0]][run]
    return standing_of(settled, Path(of_study, "runs", run), inputs_of_scale(scale))


def base_of_run(wildcards):
    """The evaluation that a run starts from; and a look at whether the run's own result is that of the run as it is now."""
    run, of_study = run_of(wildcards), f"results/{wildcards.scale}/{wildcards.study}"
    found = stands(of_study, run.id)
    remake(f"{of_study}/runs/{run.id}/metrics.json", not found.done)
    return f"{of_study}/base/{run.base}/metrics.json"


def weights_of_base(wildcards):
    """The weights that the pretrained model is evaluated with; and a look at whether it was, and on this data."""
    run = base_run(wildcards)
    path = Path(
        "results", wildcards.scale, wildcards.study, "base", run.base, "metrics.json"
    )
    remake(str(path), not base_holds(run, path, inputs_of_scale(wildcards.scale)))
    return weights_of(run)


def needs_of_part(wildcards):
    """What a part of the data is made from; and a look at whether that has another content since."""
    path = Path("results", wildcards.scale, "data", wildcards.part)
    remake(str(path), outdated(path))
    return [str(path.with_name(need.id)) for need in part_of(wildcards)[1].needs]
