"""YAML as people write it: ``1e-4`` is a number, a repeated key is an error, and every key knows its line."""

import re
from pathlib import Path
from typing import Any

import yaml

from ablation.errors import UserError

Location = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    pass


# PyYAML follows YAML 1.1, where a float needs a dot; YAML 1.2 (and everybody's habit) does without. "yes" and "no" are
# words, not booleans.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:float", "tag:yaml.org,2002:bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
    ),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: dict[Any, yaml.Mark] = {}
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if isinstance(key, (list, dict)):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key_node.start_mark)
        if key in seen:
            first = seen[key].line + 1
            raise yaml.constructor.ConstructorError(
                None, None, f"the key '{key}' stands twice (first in line {first})", key_node.start_mark
            )
        seen[key] = key_node.start_mark
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def load_yaml(path: Path) -> Any:
    """The content of ``path``. Raises :class:`UserError` naming file, line and problem."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a UTF-8 text file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply") from None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text."""
    return yaml.load(text, Loader=_Loader)


def line_of(path: Path, location: Location) -> int | None:
    """The line of ``path`` (from 1) on which the key or item at ``location`` starts; None when it is not in the file."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    line = None
    for step in location:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
            if found is None:
                return None
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
        else:
            return None
    return line


def resolve_strings(value: Any) -> Any:
    """Read the strings in ``value`` as YAML scalars would be: Snakemake hands nested ``--config`` values over as text."""
    if isinstance(value, dict):
        return {key: resolve_strings(item) for key, item in value.items()}
    if isinstance(value, list):
        return [resolve_strings(item) for item in value]
    if not isinstance(value, str):
        return value
    loader = _Loader("")
    tag = loader.resolve(yaml.ScalarNode, value, (True, False))
    return loader.construct_object(yaml.ScalarNode(tag, value)) if tag != "tag:yaml.org,2002:str" else value


def as_flag(name: str, value: Any) -> bool:
    """``value`` of the configuration switch ``name``. Raises :class:`UserError` when it is no truth value."""
    found = resolve_strings(value)
    if not isinstance(found, bool):
        raise UserError(f"{name} = {value!r}: give true or false")
    return found


def merge(base: Any, change: Any) -> Any:
    """``base`` with ``change`` laid over it: mappings are merged key by key, anything else is replaced."""
    if isinstance(base, dict) and isinstance(change, dict):
        return {key: merge(base.get(key), change[key]) if key in change else base[key] for key in {**base, **change}}
    return change


def dump_yaml(value: Any) -> str:
    """``value`` as YAML in the order given; numbers read back as the same numbers."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def in_line(value: dict[str, Any]) -> str:
    """A mapping as YAML on one line, without the outer braces: ``training: {warmup: 0.1}``."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=True, width=float("inf")).strip()[1:-1]


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False):  # indent lists below their key
        return super().increase_indent(flow, False)
