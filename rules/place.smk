# Where the workflow's own files lie: above this folder, or, where Snakemake reads its rules from a repository elsewhere
# (`module` with github(...)), in a checkout of that very commit beside Snakemake's own clone, made once.
import os
import shlex
import shutil
import subprocess
import sys
import uuid
from pathlib import Path


def git(*arguments):
    done = subprocess.run(
        ["git", *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        sys.exit(f"error: git {shlex.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def checkout(source):
    """The files of the repository that the folder ``source`` of Snakemake's is in."""
    if hasattr(source, "fetch_if_required"):  # of a git host, cloned by Snakemake
        source.fetch_if_required()
        repository = source.hosted_repo.repo_clone
    elif source.is_local:
        return Path(source.get_path_or_uri(secret_free=True)).resolve().parent
    else:
        sys.exit(
            "error: single files of the workflow are not enough; name it with github(...), gitlab(...) or a path"
        )
    commit = git(
        "-C", str(repository), "rev-parse", "--verify", f"{source.ref}^{{commit}}"
    )
    target = Path(workflow.sourcecache.cache_path).resolve() / "ablation" / commit
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = f"{target}.{uuid.uuid4().hex}"
        git("clone", "--quiet", "--no-checkout", str(repository), part)
        git("-C", part, "checkout", "--quiet", "--detach", commit)
        try:
            os.rename(part, target)
        except OSError:  # another process was faster
            shutil.rmtree(part)
    return target


ROOT = checkout(workflow.current_basedir)
sys.path.insert(0, str(ROOT / "scripts"))

from ablation.shipped import own_or_shipped


def told(command):
    """A shell command whose words on stderr are seen while it works, and kept in the rule's log."""
    return f"{{{{ {command} 2>&1 >&3 3>&- | tee {{log:q}} >&2; }}}} 3>&1"


def script(name):
    """A file of scripts/, from the working directory, as a shell command has it."""
    path = shlex.quote(os.path.relpath(ROOT / "scripts" / name))
    return path.replace("{", "{{").replace("}", "}}")


def program(name):
    """The beginning of a shell command: one of the workflow's programs."""
    return f"python {script(name)}"


# The beginning of a shell command whose words, and its program's, all go to the job's log.
LOG_TO = f". {script('log_to.sh')} {{log:q}}; "
