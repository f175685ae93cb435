# What jobs ask of a machine: of SLURM, of another cluster, of the GPUs of this one.
from ablation.gpus import card_mib
from ablation.hardware import load_card
from ablation.packing import predicted_gib, share_mib

# Resources that say where a job may run, as the SLURM executor names them; what a job needs of a machine is in the study.
PLACE = "slurm_partition slurm_account runtime constraint qos gres gpu_model slurm_extra".split()


def slurm_resources():
    """The resources of probes sent to SLURM, as JSON; nothing without it.

    They are what the profile sets for all jobs and for training, as it stands there, but for the time: a probe is short.
    """
    settings = workflow.resource_settings
    if not SLURM:
        return ""
    everywhere = settings.default_resources or {}
    training = settings.overwrite_resources.get(TRAIN_RUN, {})
    chosen = {name: everywhere[name] for name in PLACE if name in everywhere}
    for name in [*PLACE, "mem_mb"]:
        if name in training and name != "runtime":
            chosen[name] = training[name]
    values = {
        name: type(resource)(name, resource.raw).value
        for name, resource in chosen.items()
    }
    return canonical({**values, "jobs": settings.nodes})


def probe_resources():
    """What a job of some other cluster needs that probes all cells of a study, one after the other; nothing where none is sent."""
    if LOCAL or SLURM:
        return {}

    def most(name):
        return max(getattr(run.settings.compute, name) for run in ALL_RUNS)

    return {
        "gpu": 1,
        "mem_mb": most("mem_gib") * 1024,
        "runtime": most("runtime_min"),
    }


def memory_of_cards():
    """What each GPU of this machine has, in MiB, where runs may share them; None where none may, or jobs run elsewhere."""
    sharing = [run.settings for run in SETTINGS if run.settings.compute.pack > 1]
    if not sharing or not LOCAL or "gpu" not in workflow.global_resources:
        return None
    try:
        cards = [load_card(one.hardware, Path("config/hardware")) for one in sharing]
    except UserError as error:
        sys.exit(f"error: {error}")
    return card_mib(min(card.usable_gib for card in cards))


CARD_MIB = memory_of_cards()
# Then GPUs are given out by the MiB, too: a run that shares one takes its part, what has GPUs for itself takes all of theirs.
if CARD_MIB is not None:
    CARDS = workflow.global_resources["gpu"].value
    workflow.register_resource("gpu_mib", CARD_MIB * CARDS)


def whole_cards(gpus):
    """The resources of a job that has its GPUs for itself; ``gpus``: how many, a number or a function of its wildcards."""
    if CARD_MIB is None:
        return {"gpu": gpus}
    mib = (lambda w: CARD_MIB * gpus(w)) if callable(gpus) else CARD_MIB * gpus
    return {"gpu": gpus, "gpu_mib": mib}


def gpus_of_run():
    """The resources of a training that say what GPUs it takes, or what part of one."""
    if CARD_MIB is None:
        return on_nodes()

    def part(wildcards):
        # The plan is there when a run starts, unless that is asked for by its name: no input.
        plan = Path("results", wildcards.scale, wildcards.study, "plan.csv")
        known = predicted_gib(plan, wildcards.run)
        return share_mib(run_of(wildcards), known, CARD_MIB)

    def gpus(wildcards):
        return run_of(wildcards).axes["gpus"]

    return {
        "gpu": lambda w: gpus(w) if part(w) == CARD_MIB else 0,
        "gpu_mib": lambda w: gpus(w) * part(w),
    }


def on_nodes():
    """The resources of a training that say how many machines and GPUs it takes, as the SLURM executor names them.

    On several nodes: the GPUs of each (``gres``), since a job's ``gpu`` may be spread unevenly.
    """
    chosen = workflow.resource_settings.overwrite_resources.get(TRAIN_RUN, {})
    if "gpu_model" in chosen and any(
        run.settings.compute.nodes > 1 for run in ALL_RUNS
    ):
        sys.exit(
            "error: set-resources: gpu_model does not hold for runs on several nodes (compute.nodes); use constraint"
        )

    def gpus(run):
        return run.axes["gpus"]

    def nodes(run):
        return run.settings.compute.nodes

    if not LOCAL and not SLURM and any(nodes(run) > 1 for run in ALL_RUNS):
        sys.exit(
            f"error: compute.nodes: several nodes need SLURM, not --executor {EXECUTOR}; set it to 1"
        )
    if not SLURM:
        return {"gpu": of_run(gpus)}

    resources = {
        "nodes": of_run(nodes),
        "gpu": of_run(lambda run: gpus(run) if nodes(run) == 1 else None),
        "gres": of_run(
            lambda run: f"gpu:{gpus(run) // nodes(run)}" if nodes(run) > 1 else None
        ),
        "cpus_per_task": of_run(
            lambda run: (
                run.settings.compute.threads * gpus(run) // nodes(run)
                if nodes(run) > 1
                else None
            )
        ),
    }
    return {name: value for name, value in resources.items() if value is not None}
