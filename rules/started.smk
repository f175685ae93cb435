# What a job on a node works on: its study as the start that sent it has resolved it, not the files that may be in somebody's
# editor by now. None for the start itself, and for what is trained again from a folder of results.
import argparse
import sys
from pathlib import Path

from snakemake.target_jobs import parse_target_jobs_cli_args

from ablation.parsed import parse_started


def wildcards_of_jobs():
    """Of the jobs that this Snakemake was sent to do; it reads its rules before it looks at them itself."""
    arguments = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    arguments.add_argument("--target-jobs", nargs="+", default=[])
    known, _ = arguments.parse_known_args(sys.argv[1:])
    return [job.wildcards_dict for job in parse_target_jobs_cli_args(known.target_jobs)]


STARTED = None
if not workflow.is_main_process and "reference" not in config:
    STARTED = parse_started(Path("results"), wildcards_of_jobs())
