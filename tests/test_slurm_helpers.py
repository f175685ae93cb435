"""The programs that stand before SLURM's own (profiles/slurm/bin): what passes by itself costs no job."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

HELPERS = ROOT / "profiles/slurm/bin"
SESSION = "0f0e0d0c-0b0a-0908-0706-050403020100"  # as Snakemake's plugin names all of its jobs
ASKED = ["sacct", "-X", "--parsable2", "--clusters", "all", "--noheader", "--format=JobIdRaw,State"]
ASKED += ["--starttime", "2026-01-01T00:00", "--endtime", "now", "--name", SESSION]
QUEUE_ASKED = ["squeue", "--format=%i|%T", "--states=all", "--noheader", "--name", SESSION]  # with slurm-status-command: squeue
WRAP = "--wrap=python -m snakemake --target-jobs 'train_run:scale=demo,study=vggt-eth3d,run=A-r4-s0' --cores 2"
SENT = ["sbatch", "--parsable", "--job-name", SESSION, WRAP]


@pytest.fixture
def slurm(tmp_path):
    """Pretended programs of SLURM; returns what puts one there: its name, and the lines of shell that it is."""

    def put(name: str, *lines: str) -> None:
        (tmp_path / name).write_text("\n".join(["#!/bin/sh", *lines]))
        (tmp_path / name).chmod(0o755)

    put("squeue", "exit 1")
    put("scontrol", "exit 1")
    return put


def ask(folder: Path, *command: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(HELPERS), str(folder), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "SBATCH_PAUSE": "0.001", **environment}
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def states(folder: Path, asked=ASKED) -> dict[str, str]:
    done = ask(folder, *asked)
    assert done.returncode == 0, done.stderr
    return dict(line.split("|") for line in done.stdout.splitlines())


def refusing(folder: Path, times: int, *error: str) -> list[str]:
    """An sbatch that counts its calls, and so often says ``error``."""
    told = "; ".join(f"echo 'sbatch: error: {line}' >&2" for line in error)
    return [f"echo x >> {folder}/calls", f"[ $(wc -l < {folder}/calls) -gt {times} ] || {{ {told}; exit 1; }}", "echo 17"]


def calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


# --- sbatch ------------------------------------------------------------------------------------------------------------

FAILED = "Batch job submission failed: "
VIOLATES = FAILED + "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)".replace("'", "")
PASSES = {
    "Unable to contact slurm controller (connect failure)": 100,
    "Socket timed out on send/recv operation": 100,
    "Unexpected message received": 40,
    "Resource temporarily unavailable": 100,
    "Invalid authentication credential": 40,
    "words that nobody has seen": 40,
}
STAYS = [
    ("invalid partition specified: nope", FAILED + "Invalid partition name specified"),
    (FAILED + "Invalid account or account/partition combination specified",),
    (FAILED + "Invalid feature specification",),
    (FAILED + "Requested node configuration is not available",),
    ("Memory specification can not be satisfied", FAILED + "Requested node configuration is not available"),
    (FAILED + "Requested time limit is invalid (missing or exceeds some limit)",),
    ("QOSMaxWallDurationPerJobLimit", VIOLATES),
    ("unrecognized option --foo",),
    ("Unable to open file job.sh",),
    ("This does not look like a batch script.  The first",),
]


@pytest.mark.parametrize("error", PASSES)
def test_a_job_is_sent_again_until_slurm_takes_it(error, slurm, tmp_path):
    slurm("sbatch", 'echo "$@" >> arguments', *refusing(tmp_path, PASSES[error], FAILED + error))
    done = ask(tmp_path, "env", "-C", str(tmp_path), "sbatch", "--parsable", "--wrap=a 'b c'")
    assert (done.returncode, done.stdout) == (0, "17\n")
    assert (
        done.stderr == f"sbatch waits: {error}\n"
    )  # once, and without "submission failed", by which the plugin knows a failure
    assert (tmp_path / "arguments").read_text() == "--parsable --wrap=a 'b c'\n" * (PASSES[error] + 1)


@pytest.mark.parametrize("error", STAYS, ids=lambda error: error[0])
def test_what_no_waiting_changes_is_passed_on_at_once(error, slurm, tmp_path):
    slurm("sbatch", *refusing(tmp_path, 1, *error))
    slurm("squeue", "echo 1")
    done = ask(tmp_path, "sbatch", "job.sh")
    assert done.returncode == 1 and error[-1] in done.stderr and "waits" not in done.stderr
    assert calls(tmp_path) == 1


def test_words_that_nobody_knows_are_passed_on_after_some_time(slurm, tmp_path):
    slurm("sbatch", *refusing(tmp_path, 1000, FAILED + "Unspecified error"))
    done = ask(tmp_path, "sbatch", "job.sh")
    assert done.returncode == 1 and "Unspecified error" in done.stderr and calls(tmp_path) == 60


LIMITS = [
    *("AssocMaxSubmitJobLimit", "QOSMaxSubmitJobPerUserLimit", "MaxSubmitJobsPerAccount"),
    *("AssocGrpSubmitJobsLimit", "QOSGrpSubmitJobsLimit"),
]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_on_the_jobs_in_the_queue_is_waited_for(limit, slurm, tmp_path):
    slurm("sbatch", *refusing(tmp_path, 100, limit, VIOLATES))
    slurm("squeue", "echo 1")
    done = ask(tmp_path, "sbatch", "job.sh")
    assert (done.returncode, done.stdout) == (0, "17\n") and done.stderr.startswith(f"sbatch waits: {limit} ")


def test_what_was_waited_for_before_takes_no_patience_from_what_follows(slurm, tmp_path):
    unknown = refusing(tmp_path, 70, FAILED + "Unexpected message received")
    limit = refusing(tmp_path, 65, "AssocMaxSubmitJobLimit", VIOLATES)[1]
    slurm("sbatch", unknown[0], limit, *unknown[1:])
    slurm("squeue", "echo 1")
    done = ask(tmp_path, "sbatch", "job.sh")
    assert (done.returncode, done.stdout) == (0, "17\n") and done.stderr.count("sbatch waits: ") == 2


def test_a_limit_is_not_waited_for_where_no_job_of_the_user_can_make_room(slurm, tmp_path):
    """Of an array that is larger than the limit, with an empty queue."""
    slurm("sbatch", *refusing(tmp_path, 5, "AssocMaxSubmitJobLimit", VIOLATES))
    slurm("squeue", f"[ $(wc -l < {tmp_path}/calls) -gt 2 ] || echo 1")
    done = ask(tmp_path, "sbatch", "--array=0-9", "job.sh")
    assert done.returncode == 1 and "AssocMaxSubmitJobLimit" in done.stderr and calls(tmp_path) == 3


def test_a_job_that_slurm_took_though_it_said_no_is_not_sent_twice(slurm, tmp_path):
    slurm("sbatch", *refusing(tmp_path, 5, FAILED + "Socket timed out on send/recv operation"))
    slurm("squeue", f'echo "$@" > {tmp_path}/asked', "echo 16")
    done = ask(tmp_path, *SENT)
    assert (done.returncode, done.stdout, calls(tmp_path)) == (0, "16\n", 1)
    assert f"--name A-r4-s0.vggt-eth3d.{SESSION} " in (tmp_path / "asked").read_text()


def test_a_script_from_a_pipe_is_sent_again_whole(slurm, tmp_path):
    slurm("sbatch", *refusing(tmp_path, 2, FAILED + "Zero Bytes were transmitted or received")[:-1], "cat /dev/stdin")
    done = ask(tmp_path, "sbatch", "/dev/stdin", stdin="#!/bin/sh\ntrue\n")
    assert (done.returncode, done.stdout) == (0, "#!/bin/sh\ntrue\n")


def test_no_folder_for_temporary_files_is_needed(slurm, tmp_path):
    slurm("sbatch", *refusing(tmp_path, 1, FAILED + "Unexpected message received"))
    done = ask(tmp_path, "sbatch", "job.sh", TMPDIR=str(tmp_path / "not there"))
    assert (done.returncode, done.stdout) == (0, "17\n")


def test_an_interrupted_snakemake_sends_nothing_more(slurm, tmp_path):
    sends = tmp_path / "sends"
    sends.write_text("0")
    slurm("squeue", f"[ $(wc -l < {tmp_path}/calls) -lt 3 ] || rm -f {sends}", "exit 1")
    slurm("sbatch", *refusing(tmp_path, 100, FAILED + "Unexpected message received"))
    done = ask(tmp_path, *SENT, SNAKEMAKE_SENDS=str(sends))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "sbatch: error: Snakemake was interrupted")
    assert calls(tmp_path) == 3
    assert ask(tmp_path, *SENT, SNAKEMAKE_SENDS=str(sends)).returncode == 1 and calls(tmp_path) == 3  # nor the next one


def test_a_job_that_is_sent_while_snakemake_is_interrupted_is_taken_back(slurm, tmp_path):
    (tmp_path / "sends").write_text("0")
    slurm("sbatch", f"rm {tmp_path}/sends", "echo '17;cluster'")
    slurm("scancel", f'echo "$@" > {tmp_path}/cancelled')
    assert ask(tmp_path, *SENT, SNAKEMAKE_SENDS=str(tmp_path / "sends")).returncode == 1
    assert (tmp_path / "cancelled").read_text() == "17\n"


def test_the_wait_is_told_to_snakemake(slurm, tmp_path):
    """Whose plugin keeps what its sbatch says to itself."""
    os.mkfifo(tmp_path / "sends")
    pipe = os.open(tmp_path / "sends", os.O_RDWR)
    slurm("sbatch", *refusing(tmp_path, 2, FAILED + "Unexpected message received"))
    assert ask(tmp_path, *SENT, SNAKEMAKE_SENDS=str(tmp_path / "sends")).returncode == 0
    assert os.read(pipe, 1000) == b"sbatch waits: Unexpected message received\n"
    os.close(pipe)


@pytest.mark.parametrize(
    ("wrapped", "name"),
    {
        "'train_run:scale=demo,study=vggt-eth3d,run=A-r4-s0'": f"A-r4-s0.vggt-eth3d.{SESSION}",
        "train_run:scale=demo,study=x/verified,run=A": f"A.x-verified.{SESSION}",
        "'prepare_part:scale=demo,part=scene'": f"prepare_part.scene.{SESSION}",
        "'all:'": f"all.{SESSION}",
    }.items(),
)
def test_a_job_is_named_after_its_run(wrapped, name, slurm, tmp_path):
    slurm("sbatch", 'echo "$3"')
    assert ask(tmp_path, *SENT[:-1], f"--wrap=snakemake --target-jobs {wrapped} --cores 2").stdout.strip() == name
    assert ask(tmp_path, *SENT[:3], "probe", "--wrap=true").stdout == "probe\n"


# --- sacct and squeue --------------------------------------------------------------------------------------------------


def told(*jobs: str, session: str = SESSION) -> str:
    """Shell that prints jobs as SLURM does: ``1|RUNNING`` and the name of each."""
    return "; ".join(f"echo '{job}|A-r4-s0.vggt-eth3d.{session}'" for job in jobs) or ":"


@pytest.mark.parametrize("asked", [ASKED, QUEUE_ASKED], ids=["sacct", "squeue"])
def test_the_queue_is_believed_before_the_accounting(asked, slurm, tmp_path):
    slurm("sacct", told("1|RUNNING", "2|CANCELLED by 0", "3|COMPLETED", "4|FAILED"), told("8|RUNNING", session="another"))
    slurm("squeue", told("1|COMPLETED", "4|PENDING", "5|PREEMPTED", "6|RUNNING"), told("9|RUNNING", session="another"))
    assert states(tmp_path, asked) == {
        "1": "COMPLETED",
        "2": "CANCELLED",  # and not "by" whom, which the plugin does not know
        "3": "COMPLETED",  # forgotten by the queue
        "4": "PENDING",  # queued again
        "5": "FAILED",  # preempted for good
        "6": "RUNNING",
    }


def test_a_job_that_the_controller_has_lost_has_failed(slurm, tmp_path):
    slurm("sacct", told("1|RUNNING", "2|PENDING", "3|NODE_FAIL"))
    slurm("squeue", told("2|PENDING"))
    slurm("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert states(tmp_path) == {"1": "FAILED", "2": "PENDING", "3": "FAILED"}


@pytest.mark.parametrize("answer", [":", "echo nonsense; echo '|'; echo; echo 'a|b|c|d'", "printf '\\377\\000|\\n'"])
def test_a_queue_that_answers_nothing_or_nonsense_once_fails_no_job(answer, slurm, tmp_path):
    slurm("sacct", "echo nonsense", told("1|RUNNING", "2|PREEMPTED", "3|COMPLETED"))
    slurm("squeue", answer)
    slurm("scontrol", "echo JobId=$4 JobName=x JobState=PENDING Reason=None")
    assert states(tmp_path) == {"1": "PENDING", "2": "PENDING", "3": "COMPLETED"}
    slurm("scontrol", "exit 1")
    assert states(tmp_path) == {"1": "RUNNING", "2": "RUNNING", "3": "COMPLETED"}


def test_a_daemon_that_is_away_fails_no_job(slurm, tmp_path):
    slurm("sacct", told("1|RUNNING", "2|COMPLETED", "3|PREEMPTED"))
    assert states(tmp_path) == {"1": "RUNNING", "2": "COMPLETED", "3": "RUNNING"}
    slurm("sacct", "exit 1")
    assert states(tmp_path) == {}
    slurm("squeue", told("1|RUNNING"))
    assert states(tmp_path) == {"1": "RUNNING"}


@pytest.mark.parametrize("program", ["sacct", "squeue"])
def test_other_questions_are_passed_on_as_they_are(program, slurm, tmp_path):
    slurm(program, 'echo "$@"', "exit 4")
    done = ask(tmp_path, program, "-o", "JobID,State", "-j", "17")
    assert (done.returncode, done.stdout) == (4, "-o JobID,State -j 17\n")
