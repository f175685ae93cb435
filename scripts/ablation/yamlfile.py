"""YAML as people write it: ``1e-4`` is a number, a repeated key is an error, and every key knows its line.

A file may be anybody's: how large it is, how deep, and how much its aliases make of it is bounded, and its values are plain.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ablation.errors import UserError, is_control
from ablation.outside import read_text

Location = tuple[str | int, ...]

LARGEST = 200_000  # bytes of a file
MOST = 20_000  # values of a file, those behind an alias counted each time it is used
DEEPEST = 32  # values within values
LARGEST_INTEGER = 2**63 - 1

TAG = "tag:yaml.org,2002:"
TEXT = f"{TAG}str"
PLAIN = {f"{TAG}{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}


# Of a line: a key and its value, which a comment may follow; a pair in braces; a value that YAML takes for a mark of its own.
_VALUE = re.compile(r"^(\s*(?:- )*[\w.-]+:\s+)([^\s\[{'\"].*?)(?=\s*(?:\s#.*)?$)")
_PAIR = re.compile(r"([{,]\s*[\w.-]+:\s+)([^\s,\[\]{}'\"][^,\[\]{}]*: [^,\[\]{}]*?)(?=\s*[,}])")
_MARK = re.compile(r"((?:^|[:,\[{-])\s*)([*&@`%][^,\[\]{}]*?)(?=\s*(?:[,\]}]|\s#|$))")


class _Loader(yaml.SafeLoader):
    """Gives plain values only: no objects, dates, sets or bytes."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        self.depth += 1
        if self.depth > DEEPEST:
            raise _problem(f"nested too deeply, more than {DEEPEST} levels", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node.tag not in PLAIN:
            raise _problem(f"a value cannot be of the kind {node.tag.removeprefix(TAG)}", node.start_mark)
        if isinstance(node, yaml.ScalarNode) and any(map(_is_no_text, node.value)):
            raise _problem("a text holds a control character", node.start_mark)
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _check_aliases(node)
        return node


def _problem(text: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=mark)


def _is_no_text(character: str) -> bool:
    return character not in "\n\t" and is_control(character)


def _check_aliases(root: yaml.Node) -> None:
    """Raises where aliases make too much of little, or a value holds itself."""
    known: dict[int, tuple[int, int] | None] = {}

    def extent(node: yaml.Node) -> tuple[int, int]:
        """Values and levels of ``node``."""
        if isinstance(node, yaml.ScalarNode):
            return 1, 1
        if id(node) not in known:
            known[id(node)] = None
            inside = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
            counts, levels = zip(*map(extent, inside), strict=True) if inside else ((0,), (0,))
            known[id(node)] = 1 + sum(counts), 1 + max(levels)
        found = known[id(node)]
        if found is None:
            raise _problem("a value holds an alias of itself", node.start_mark)
        if found[0] > MOST or found[1] > DEEPEST:
            raise _problem(f"more than {MOST:,} values or {DEEPEST} levels, aliases included", node.start_mark)
        return found

    extent(root)


def _plain(kind: str) -> Any:
    """The constructor of a kind of scalar, which for what is none raises as all others do."""
    construct = yaml.SafeLoader.yaml_constructors[f"{TAG}{kind}"]

    def checked(loader: _Loader, node: yaml.Node) -> Any:
        try:
            value = construct(loader, node)
        except (ValueError, LookupError, OverflowError):
            raise _problem(f"{node.value[:60]!r} is no {kind}", node.start_mark) from None
        if kind == "int" and abs(value) > LARGEST_INTEGER:
            raise _problem(f"a whole number beyond {LARGEST_INTEGER:,}", node.start_mark)
        return value

    return checked


for _kind in ("int", "float", "bool", "null"):
    _Loader.add_constructor(f"{TAG}{_kind}", _plain(_kind))

# PyYAML follows YAML 1.1, where a float needs a dot; YAML 1.2 (and everybody's habit) does without. "yes" and "no" are
# words, not booleans, and a date is text.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in PLAIN and tag not in (f"{TAG}float", f"{TAG}bool")]
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
    text = read_text(path, LARGEST)
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{where}: not valid YAML: {problem}{_remedy(text, mark.line) if mark else ''}") from None


def _remedy(text: str, number: int) -> str:
    """The line ``number`` (from 0) as it can be read, and why it could not, where that is found by trying."""
    lines = text.splitlines()
    line = lines[number] if number < len(lines) else ""
    ways = [
        ("write spaces, not tabs", line.replace("\t", "  ")),
        *(("quote a value that holds ': '", _quoted(pattern, line)) for pattern in (_VALUE, _PAIR) if line.count(": ") > 1),
        ("quote a value that begins with a special character", _quoted(_MARK, line)),
    ]
    for why, corrected in ways:
        if corrected != line and _is_read(lines, number, corrected):
            return f"; {why}\n  corrected:\n    {corrected.rstrip()}"
    return ""


def _is_read(lines: list[str], number: int, corrected: str) -> bool:
    """Whether the text can be read up to the line ``number`` at least, where that is ``corrected``."""
    try:
        parse_yaml("\n".join([*lines[:number], corrected, *lines[number + 1 :]]))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return mark is not None and mark.line > number
    return True


def _quoted(pattern: re.Pattern[str], line: str) -> str:
    """``line`` with the second group of each match in quotes."""
    return pattern.sub(lambda found: f"{found[1]}'{found[2].replace(chr(39), 2 * chr(39))}'", line)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text."""
    return yaml.load(text, Loader=_Loader)


def line_of(path: Path, location: Location) -> int | None:
    """The line of ``path`` (from 1) on which the key or item at ``location`` starts; None when it is not in the file."""
    try:
        node = _composed(read_text(path, LARGEST))
    except (UserError, yaml.YAMLError):
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


@lru_cache(maxsize=2)  # an error with several findings asks many times
def _composed(text: str) -> yaml.Node | None:
    return yaml.compose(text, Loader=_Loader)


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
    try:
        return loader.construct_object(yaml.ScalarNode(tag, value)) if tag in PLAIN - {TEXT} else value
    except yaml.YAMLError as error:
        raise UserError(f"{value[:60]!r}: {error.problem}") from None


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
