"""Constraints are a small language of their own: nothing outside it parses, and nothing is run as Python."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablation.errors import UserError
from ablation.expression import Expression

CELL = {"strategy": "B", "rank": 16, "batch": 2, "accumulation": 4, "gpus": 1, "training.clip": 0.5}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch * accumulation * gpus == 8", True),
        ("batch*accumulation != 8", False),
        ("rank <= 16 and strategy in ['A', 'B']", True),
        ("not (strategy == 'A' or rank > 32)", True),
        ("4 <= rank < 16", False),
        ("rank % 2 == 0", True),
        ("training.clip < 1.0", True),
        ("-rank < 0", True),
        ("rank // 3 == 5 and rank / 3 > 5", True),
        ("strategy not in ['A']", True),
        ("true", True),
    ],
)
def test_values(text, expected):
    assert Expression(text)(CELL) is expected


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "(lambda: True)()",
        "[x for x in [1]]",
        "rank ** 99999",
        "strategy.__class__.__name__ == 'str'[0:3]",
        "f'{rank}'",
        "rank := 3",
        "rank if batch else 2",
        "b'bytes' == strategy",
        "{1: 2}",
        "rank ==",
        "",
        "(" * 500 + "rank" + ")" * 500,
        "not " * 240 + "true and " * 2000,
        "None",
        "1 << 3",
    ],
)
def test_everything_else_is_refused(text):
    with pytest.raises(UserError):
        Expression(text)(CELL)


@pytest.mark.parametrize(
    "text", ["rank", "rank + 'A' == 3", "strategy < 3", "rank / 0 == 1", "rank in 3", "strategy * 3 == 'BBB'"]
)
def test_type_errors_are_explained(text):
    with pytest.raises(UserError, match="`"):
        Expression(text)(CELL)


def test_names_are_those_of_the_axes():
    assert Expression("batch * accumulation == 8 and training.clip > 0").names == {
        "batch",
        "accumulation",
        "training.clip",
    }


@given(st.text(max_size=60))
def test_any_text_is_a_constraint_or_a_user_error(text):
    try:
        expression = Expression(text)
    except UserError:
        return
    if expression.names <= set(CELL):
        with suppress(UserError):
            assert isinstance(expression(CELL), bool)


@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from(["==", "<", "<=", ">", ">=", "!="]))
def test_arithmetic_agrees_with_python(batch, accumulation, sign):
    text = f"batch * accumulation {sign} 64"
    by_python = {
        "==": int.__eq__,
        "<": int.__lt__,
        "<=": int.__le__,
        ">": int.__gt__,
        ">=": int.__ge__,
        "!=": int.__ne__,
    }[sign]
    assert Expression(text)({"batch": batch, "accumulation": accumulation}) == by_python(batch * accumulation, 64)
