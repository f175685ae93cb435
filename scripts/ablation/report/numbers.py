"""Numbers of comparisons as people read them."""

import numpy as np

from ablation.report.table import NONE

MINUS = "\N{MINUS SIGN}"


def signed(value: float, digits: int) -> str:
    """``+0.012``, ``−0.012``; no sign for what rounds to zero."""
    text = f"{value:+.{digits}f}".replace("-", MINUS)
    return text if float(f"{value:.{digits}f}") else text[1:]


def difference(mean: float | None, half_width: float | None, digits: int) -> str:
    """``+0.012 ± 0.004``; without the interval where there is none, a dash without a number."""
    if mean is None or np.isnan(mean):
        return NONE
    return signed(mean, digits) + ("" if half_width is None else f" ± {half_width:.{digits}f}")


def change(after: float, before: float) -> str:
    """From ``before`` to ``after``: ``+12 %``, ``−1.2 %``; ``×28`` for what is three times as much or more."""
    if after >= 3 * before:
        return f"×{after / before:.2g}" if after < 99.5 * before else f"×{after / before:,.0f}"
    percent = 100 * (after / before - 1)
    return f"{signed(percent, 0 if abs(percent) >= 10 else 1)} %"


def p_value(p: float | None) -> str:
    """``0.012``, ``<0.001``; as many digits as it takes to tell it from 0.05."""
    if p is None or np.isnan(p):
        return NONE
    if abs(p - 0.05) < 0.0005:
        return f"{p:.5f}"
    return "<0.001" if p < 0.001 else f"{p:.2f}" if p >= 0.095 else f"{p:.3f}"


def p_words(p: float) -> str:
    """``p = 0.012``, ``p < 0.001``."""
    return f"p < {p_value(p)[1:]}" if p < 0.001 else f"p = {p_value(p)}"


def enough_digits(numbers: list[float | None], digits: int) -> int:
    """``digits``, or up to two more where some of ``numbers`` would be printed as zero and are not, next to the largest."""
    sizes = [abs(number) for number in numbers if number is not None and not np.isnan(number)]
    least = 1e-3 * max(sizes, default=0)
    small = [size for size in sizes if size > least]
    return next((d for d in (digits, digits + 1) if all(float(f"{size:.{d}f}") for size in small)), digits + 2)
