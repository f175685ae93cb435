"""Expressions over named values: constraints such as ``batch * accumulation * gpus == 8``, and formulas.

The text is parsed to a tree of a few allowed nodes and interpreted here; nothing of it is ever run as Python.
"""

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ablation.errors import UserError

MAX_LENGTH = 1000

_ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_ORDER: dict[type, Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_WORDS = {"true": True, "false": False}
_ALLOWED = "names, numbers, strings, lists, + - * / // %, comparisons, in, and, or, not"


class Expression:
    """A parsed expression. Construction raises :class:`UserError` for anything outside the small language."""

    def __init__(self, text: str):
        self.text = text
        if len(text) > MAX_LENGTH:
            raise UserError(f"an expression of {len(text)} characters; at most {MAX_LENGTH} are read")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Python's, on what looks odd
                self._tree = ast.parse(text.strip(), mode="eval").body
            self.names = frozenset(_names(self._tree, text))
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise UserError(f"`{text}` is not an expression: {getattr(error, 'msg', None) or 'it cannot be parsed'}") from None

    def __call__(self, values: Mapping[str, Any]) -> bool:
        """Whether ``values`` (name -> value) meet the constraint."""
        result = self._value(self._tree, values)
        if not isinstance(result, bool):
            raise UserError(f"`{self.text}` gives {result!r}, not true or false; did you mean `{self.text} == ...`?")
        return result

    def number(self, values: Mapping[str, Any]) -> float:
        """What the formula gives for ``values``."""
        return self._number(self._tree, values)

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Name(id=name) if name in _WORDS:
                return _WORDS[name]
            case ast.Name() | ast.Attribute():
                return values[_dotted(node)]
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._value(item, values) for item in items]
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self._value(operand, values)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._number(operand, values)
            case ast.BoolOp(op=ast.And(), values=parts):
                return all(self._value(part, values) for part in parts)
            case ast.BoolOp(op=ast.Or(), values=parts):
                return any(self._value(part, values) for part in parts)
            case ast.BinOp(left=left, op=op, right=right):
                return self._arithmetic(op, self._number(left, values), self._number(right, values))
            case ast.Compare():
                return self._comparison(node, values)
        raise AssertionError(f"unchecked node {ast.dump(node)}")

    def _arithmetic(self, op: ast.operator, left: float, right: float) -> float:
        try:
            return _ARITHMETIC[type(op)](left, right)
        except (ZeroDivisionError, OverflowError) as error:
            raise UserError(f"`{self.text}`: {error}") from None

    def _number(self, node: ast.expr, values: Mapping[str, Any]) -> float:
        value = self._value(node, values)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UserError(f"`{self.text}`: {ast.unparse(node)} is {value!r}, and arithmetic needs a number")
        return value

    def _comparison(self, node: ast.Compare, values: Mapping[str, Any]) -> bool:
        left = self._value(node.left, values)
        for op, right_node in zip(node.ops, node.comparators, strict=True):
            right = self._value(right_node, values)
            if not self._compare(op, left, right):
                return False
            left = right
        return True

    def _compare(self, op: ast.cmpop, left: Any, right: Any) -> bool:
        if isinstance(op, (ast.Eq, ast.NotEq)):
            return (left == right) == isinstance(op, ast.Eq)
        if isinstance(op, (ast.In, ast.NotIn)):
            if not isinstance(right, list):
                raise UserError(f"`{self.text}`: `in` needs a list on its right, such as `strategy in ['A', 'B']`")
            return (left in right) == isinstance(op, ast.In)
        try:
            return bool(_ORDER[type(op)](left, right))
        except TypeError:
            raise UserError(f"`{self.text}`: {left!r} and {right!r} cannot be ordered") from None


def _names(node: ast.AST, text: str) -> list[str]:
    """Names used below ``node``; raises on any node outside the language."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str()):
            return []
        case ast.Name(id=name) if name in _WORDS:
            return []
        case ast.Name() | ast.Attribute() if _dotted(node):
            return [_dotted(node)]
        case ast.List() | ast.Tuple() | ast.BoolOp():
            children = node.values if isinstance(node, ast.BoolOp) else node.elts
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            children = [node.operand]
        case ast.BinOp(op=op) if type(op) in _ARITHMETIC:
            children = [node.left, node.right]
        case ast.Compare(ops=ops) if all(
            isinstance(op, (ast.Eq, ast.NotEq, ast.In, ast.NotIn)) or type(op) in _ORDER for op in ops
        ):
            children = [node.left, *node.comparators]
        case _:
            raise UserError(f"`{text}`: `{ast.unparse(node)}` is not allowed in an expression; allowed are {_ALLOWED}")
    return [name for child in children for name in _names(child, text)]


def _dotted(node: ast.AST) -> str:
    """``training.steps`` for the tree of that text; empty when the node is no dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := _dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""
