"""A study or a system to begin with, each with a test that passes: copied under a new name, to be changed by its owner."""

import keyword
import re
from pathlib import Path

from ablation.errors import UserError
from ablation.explain import did_you_mean
from ablation.files import write_text
from ablation.settings import NAME
from ablation.shipped import config_files
from ablation.yamlfile import load_yaml

NEW_STUDY, NEW_SYSTEM = "newstudy", "newsystem"  # what stands for the name in templates
SYSTEM_NAME = r"[a-z][a-z0-9_]{0,30}"
REGISTRY = re.compile(r"(?<=for name in \()[^)]*(?=\)})")


def new_study(name: str, system: str, root: Path) -> list[Path]:
    """Write a study of ``system``, from the one that comes first among those there are, and its test; returns the files.

    ``root``: of the project. Raises UserError for a name that cannot be, files that are there, or no such system.
    """
    if not re.fullmatch(NAME, name):
        raise UserError(
            f"NAME={name!r} cannot be the name of a study; take letters, digits, '_', '.' and '-', such as NAME=mine"
        )
    examples = _examples(root)
    if system not in examples:
        hint = did_you_mean(system, examples)
        raise UserError(f"SYSTEM={system!r}: there is no such system{hint} (known: {', '.join(examples)})")
    test = _template(root, "study_test.py").replace(NEW_STUDY, name)
    files = {
        f"config/studies/{name}.yaml": study_text(name, examples[system]),
        f"tests/test_study_{re.sub(r'[^a-z0-9]', '_', name.lower())}.py": test,
    }
    return _write(root, files)


def new_system(name: str, root: Path) -> list[Path]:
    """Write a small system that runs, its study and its test, and register it; returns the files."""
    if not re.fullmatch(SYSTEM_NAME, name) or keyword.iskeyword(name):
        raise UserError(f"NAME={name!r} cannot be the name of a system; take small letters, digits and '_', such as NAME=toy")
    if (root / "scripts/ablation/systems" / name).exists() or (root / f"scripts/ablation/systems/{name}.py").exists():
        raise UserError(f"NAME={name!r}: scripts/ablation/systems has that already; take another name")
    templates = root / "resources/templates"
    files = {
        f"scripts/ablation/systems/{name}/{path.name}": path.read_text(encoding="utf-8")
        for path in (templates / "system").glob("*.py")
    }
    files |= {
        f"config/studies/{name}.yaml": _template(root, "system.yaml"),
        f"tests/test_{name}_system.py": _template(root, "system_test.py"),
    }
    written = _write(root, {path: text.replace(NEW_SYSTEM, name) for path, text in files.items()})
    registry = root / "scripts/ablation/systems/__init__.py"
    write_text(registry, registered(registry.read_text(encoding="utf-8"), name))
    return [*written, registry]


def registered(text: str, name: str) -> str:
    """The registry with one more system, in the order of the alphabet."""
    names = sorted({*re.findall(r'"(\w+)"', REGISTRY.search(text)[0]), name})
    return REGISTRY.sub(", ".join(f'"{each}"' for each in names), text)


def study_text(name: str, example: Path) -> str:
    """The study of ``example`` under another name: its settings and comments, but neither its head nor published claims."""
    lines = example.read_text(encoding="utf-8").splitlines()
    body = lines[next(number for number, line in enumerate(lines) if line.startswith("system:")) :]
    kept = [line for line in body if not line.startswith(("claims:", "title:"))]
    head = [
        "# yaml-language-server: $schema=../schemas/study.json",
        "#",
        f"# {name}: what do you want to know? Made from {example.name}; change data, weights, strategies and sweep.",
        "# The file is explained in docs/study.md, every setting in docs/settings.md. `scales: demo` is the same study, small",
        "# enough for a CPU: a rehearsal before the full one.",
    ]
    return "\n".join([*head, kept[0], f"title: {name}", *kept[1:]]) + "\n"


def _examples(root: Path) -> dict[str, Path]:
    """System -> its first study."""
    found: dict[str, Path] = {}
    for path in config_files(root / "config/studies").values():
        content = load_yaml(path)
        if isinstance(content, dict) and isinstance(content.get("system"), str):
            found.setdefault(content["system"], path)
    return dict(sorted(found.items()))


def _template(root: Path, name: str) -> str:
    return (root / "resources/templates" / name).read_text(encoding="utf-8")


def _write(root: Path, files: dict[str, str]) -> list[Path]:
    """All of ``files``, or, where one is there already, none."""
    if there := [path for path in files if (root / path).exists()]:
        raise UserError(f"{there[0]} is there already; remove it, or take another NAME")
    for path, text in files.items():
        write_text(root / path, text)
    return [root / path for path in files]
