"""What strangers may send: values, mutations of real files, and what must come of them.

``HYPOTHESIS_PROFILE=thousands pytest tests/test_hostile_*.py`` tries thousands of inputs a test instead of dozens.
"""

import copy
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ablation.errors import LONGEST, UserError, is_control

T = TypeVar("T")

MORE = 30 if os.environ.get("HYPOTHESIS_PROFILE") == "thousands" else 1
SECONDS = 30.0  # of CPU, the most that one input may take

NUMBERS = [
    0,
    -1,
    1,
    3,
    10**6,
    2**31,
    2**63,
    -(2**63) - 1,
    10**30,
    10**400,
    0.5,
    -0.0,
    1e308,
    1e-320,
    float("inf"),
    float("nan"),
]
TEXTS = [
    "", " ", ".", "..", "../../../etc/passwd", "/etc/passwd", "/dev/zero", "~root", "-rf", "--help", "a//b", "x" * 5000,
    "y/" * 600,
    "$(touch pwned)", "`touch pwned`", "; touch pwned #", "| sh", "a\nb", "a\0b", "\x1b[31mred", "\x9b2J", "a\u202eb",
    "\ud800", "🙂" * 90,
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "{{7*7}}", "{x}", "{wildcards.run}", "{output}", "%(x)s",
    "$\\frac{", "''",
    "nan", ".inf", "null", "~", "true", "1e999", "0x", "0b_", "1_0", "2001-99-99", "12:30:45", "=", "<<", "*", "&a",
    "!!python/name:os.system",
    "vggt", "rdt", "demo", "full", "zero3", "fp16", "rank", "training.clip", "training.clip.real", "strategies.A.lr",
    "strategies..lr", "sweep.rank",
    "__class__", "__class__.__init__.__globals__", "model_fields", "model_config", "data.__class__", "0-99999999999999999999",
    "blocks.*.12-3",
    "con", "a.b.c.d.e.f.g", "A", "B", "library",
]  # fmt: skip
EXPRESSIONS = [
    "rank.__class__ == 1", "().__class__.__bases__", "9**9**9 == 1", "rank in rank", "batch / 0 == 1", "lambda: 1",
    "[x for x in y]", "True",
    " * ".join(["9" * 60] * 15) + " == 1", "(" * 300 + "1" + ")" * 300, "not " * 240 + "true", "-" * 900 + "1 == 1",
    "1 < " * 240 + "2", "'a' * 99 == 1",
    "1e308 * 1e308 == 1", "1e308 * 10 // 1 == 1", "9" * 999 + " / 3 == 1", "[" * 90 + "]" * 90 + " == 1", "batch == 'x\ny'",
    "batch ==", "0x", "rank if",
    "rank == 16 and", "f'{rank}'", "\0", "batch % 0.0 == 1", "9" * 400 + " * 1.5 == 2", "strategy < 3", "seed in [[[[1]]]]",
    "batch\n== 1", "é == 1", "1 is 1",
    "batch * accumulation * gpus == 8", "rank < 64", "true",
]  # fmt: skip


def nested(levels: int) -> list:
    """Lists within lists."""
    inner: list = []
    for _ in range(levels):
        inner = [inner]
    return inner


STRUCTURES = [
    None, True, False, [], {}, [[]], {"": 0}, {"a": {"a": {"a": {}}}}, nested(20), nested(40), nested(100), list(range(3000)),
    [0] * 3000,
    ["A"] * 50, {f"k{n}": n for n in range(300)}, {1: 2, 2.5: 3, None: 5}, {"lora": ["*"]}, {"lora": [], "full": []},
    {"train": {"full": ["x"]}, "lr": 1},
    [{}], [{"rank": -1}], [{"rank": "x"}], [{"strategy": "A"}], [{"gpus": 10**9}], {"demo": 5}, {"demo": {"scales": {}}},
    {"value": "x", "one_of": [1]},
]  # fmt: skip

scalars = st.one_of(
    st.sampled_from(NUMBERS),
    st.sampled_from(TEXTS),
    st.sampled_from(EXPRESSIONS),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
)
values = st.one_of(
    scalars,
    st.sampled_from(STRUCTURES),
    st.lists(scalars, max_size=4),
    st.dictionaries(st.sampled_from(TEXTS), scalars, max_size=3),
).map(copy.deepcopy)


def examples(count: int) -> settings:
    """So many inputs, or twenty times as many."""
    return settings(max_examples=count * MORE, suppress_health_check=list(HealthCheck))


@contextmanager
def bounded() -> Iterator[None]:
    """However it ends, it does so soon."""
    begun = time.process_time()
    try:
        yield
    finally:
        taken = time.process_time() - begun
        assert taken < SECONDS, f"took {taken:.0f} s"


def used_or_refused(use: Callable[[], T]) -> T | UserError:
    """What ``use`` gives, or the UserError that it ends with, which can be read; anything else fails the test."""
    with bounded():
        try:
            return use()
        except UserError as error:
            check_readable(str(error))
            return error


def check_readable(text: str) -> None:
    """One message for people: not empty, not endless, nothing that a terminal would act on, no traceback."""
    assert text.strip() and len(text) < LONGEST * 11 and "Traceback" not in text
    assert not [character for character in text if character not in "\n\t" and is_control(character)]


def places(content: Any) -> list[tuple]:
    """The path of every value in ``content``."""
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [(), *((key, *rest) for key, value in inside for rest in places(value))]


@st.composite
def mutated(draw, content: Any, favoured: tuple[tuple, ...] = ()) -> Any:
    """``content`` with one to three things wrong; ``favoured``: places that are there or could be, and are often chosen."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        choices = places(content)[1:]
        if not choices and not favoured:
            break
        *above, last = draw(st.sampled_from([*choices, *favoured * max(1, len(choices) // (3 * len(favoured) + 1))]))
        holder = _holder(content, above)
        if not isinstance(holder, dict | list):
            continue
        what = draw(st.sampled_from(["replace", "replace", "replace", "add", "remove", "rename", "wrap", "repeat"]))
        present = (isinstance(holder, dict) and last in holder) or (
            isinstance(holder, list) and isinstance(last, int) and last < len(holder)
        )
        if what == "add" and isinstance(holder, dict):
            holder[draw(st.sampled_from(TEXTS))] = draw(values)
        elif what == "remove" and present:
            del holder[last]
        elif what == "rename" and present and isinstance(holder, dict):
            holder[draw(st.one_of(st.sampled_from(TEXTS), st.just(f"{last}s"), st.integers()))] = holder.pop(last)
        elif what in ("wrap", "repeat") and present:
            holder[last] = [holder[last]] * (1 if what == "wrap" else 40)
        elif isinstance(holder, dict) or present:
            holder[last] = draw(values)
    return content


def _holder(content: Any, path: list) -> Any:
    for step in path:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            return None
    return content


@st.composite
def corrupted(draw, content: bytes, snippets: tuple[bytes, ...] = (), at_start: int = 0) -> bytes:
    """The bytes of a file with one to four things done to them: cut, overwritten, repeated, ``snippets`` inserted.

    Where ``at_start`` is given, half of the changes are in so many of the first bytes: where sizes are told.
    """
    for _ in range(draw(st.integers(1, 4))):
        end = min(len(content), at_start) if at_start and draw(st.booleans()) else len(content)
        start, stop = sorted((draw(st.integers(0, end)), draw(st.integers(0, end))))
        what = draw(st.sampled_from(["cut", "overwrite", "insert", "remove", "repeat", "number"]))
        if what == "cut":
            content = content[:stop]
        elif what == "overwrite":
            content = content[:start] + draw(st.binary(min_size=1, max_size=8)) + content[start + 8 :]
        elif what == "insert":
            piece = draw(st.sampled_from(snippets)) if snippets else draw(st.binary(max_size=40))
            content = content[:start] + piece + content[start:]
        elif what == "remove":
            content = content[:start] + content[min(stop, start + 200) :]
        elif what == "repeat":
            content = content[:stop] + content[start:stop][:2000] * 3 + content[stop:]
        else:
            size = draw(st.sampled_from([1, 2, 4, 8]))
            number = draw(st.sampled_from([0, 1, 2**7, 2**15, 2**31 - 1, 2**32 - 1, 2**60, 2**63, 2**64 - 1])) % 2 ** (8 * size)
            content = content[:start] + number.to_bytes(size, "little") + content[start + size :]
    return content
