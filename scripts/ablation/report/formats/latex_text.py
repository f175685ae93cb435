"""Any text as LaTeX that a bare document with pdflatex and Computer Modern sets."""

import re
import unicodedata

PLAIN = re.compile(r"(?:[A-Za-z0-9 .,:;+=/()*]|-(?!-))*")
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": "$<$", ">": "$>$", "|": "$|$", '"': "''", "`": "{`}",
    "'": "{'}", "[": "{[}", "]": "{]}",
}  # fmt: skip
SYMBOLS = {
    "±": r"$\pm$", "\N{MINUS SIGN}": "$-$", "×": r"$\times$", "·": r"$\cdot$", "÷": r"$\div$", "≈": r"$\approx$",
    "≤": r"$\le$", "≥": r"$\ge$", "≠": r"$\neq$", "∞": r"$\infty$", "√": r"$\surd$", "°": r"$^{\circ}$", "²": "$^{2}$",
    "³": "$^{3}$", "¹": "$^{1}$", "µ": r"$\mu$", "∈": r"$\in$", "∆": r"$\Delta$", "∼": r"$\sim$", "⁻": "$^{-}$",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "←": r"$\leftarrow$", "→": r"$\rightarrow$", "↔": r"$\leftrightarrow$",
    "✓": r"$\surd$", "✗": r"$\times$", "✔": r"$\surd$", "✘": r"$\times$", "†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}",
    "¶": r"\P{}", "©": r"\copyright{}", "•": r"$\bullet$", "…": r"\ldots{}", "–": "{--}", "—": "{---}", "‐": "{-}", "‑": "{-}",
    "‘": "{`}", "’": "{'}", "“": "``", "”": "''", "„": "''", "«": r"$\ll$", "»": r"$\gg$", "\N{NO-BREAK SPACE}": "~",
    "\N{NARROW NO-BREAK SPACE}": r"\,", "\N{THIN SPACE}": r"\,",
    "\N{ZERO WIDTH SPACE}": r"\allowbreak{}", "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "ø": r"\o{}",
    "Ø": r"\O{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "£": r"\pounds{}",
    "¡": "!`", "¿": "?`",
}  # fmt: skip
GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ζ": "zeta", "η": "eta", "θ": "theta",
    "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "ς": "varsigma", "τ": "tau", "υ": "upsilon", "φ": "varphi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma",
    "Δ": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma", "Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi",
    "Ω": "Omega",
}  # fmt: skip
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".", "\u0308": '"',
    "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip


class _Commands(dict[int, str]):
    """Characters by code point, found as they are met."""

    def __missing__(self, point: int) -> str:
        return self.setdefault(point, _character(chr(point)))


COMMANDS = _Commands()


def latex(text: str) -> str:
    """``text`` on one line; a character that has no command is named by its code point, ``U+4E2D``."""
    one_line = " ".join(text.split())
    if PLAIN.fullmatch(one_line):  # most are
        return one_line
    if "--" not in one_line:
        return one_line.translate(COMMANDS)
    apart = (
        c + "{}" if c == "-" == following else _character(c) for c, following in zip(one_line, f"{one_line[1:]} ", strict=False)
    )
    return "".join(apart)


def _character(c: str) -> str:
    if c in SPECIAL:
        return SPECIAL[c]
    if " " <= c < "\x7f":
        return c
    if c in SYMBOLS:
        return SYMBOLS[c]
    if c in GREEK:
        return f"$\\{GREEK[c]}$"
    parts = unicodedata.normalize("NFD", c)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in ACCENTS:
        return f"\\{ACCENTS[parts[1]]}{{{parts[0]}}}"
    return f"{{\\ttfamily U+{ord(c):04X}}}"
