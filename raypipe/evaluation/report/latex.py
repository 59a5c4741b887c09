"""A comparison as LaTeX: a booktabs table for each test set."""

from __future__ import annotations

import re

from raypipe.evaluation.comparison import tested
from raypipe.evaluation.report.contents import LABELS, Report, SetFacts
from raypipe.evaluation.report.tables import figure
from raypipe.evaluation.results import Line
from raypipe.names import printable

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_GREEK = dict(zip("αβγδεζηθλμνξπρστφχψω", (
    *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "lambda", "mu"),
    *("nu", "xi", "pi", "rho", "sigma", "tau", "phi", "chi", "psi", "omega"),
), strict=True))  # fmt: skip
_KNOWN = frozenset("\u2013\u2014\u2018\u2019\u201c\u201d\u2020\u2021\u2022\u2026\u20ac\u2122")
"""Punctuation that pdfLaTeX prints by itself, as it does all up to U+017F."""
_KEY = re.compile(r"[^A-Za-z0-9]+")


def tex(text: str) -> str:
    r"""The text as LaTeX prints it; nothing of it is a command.

    >>> tex("A & B -> C_1")
    'A \\& B $\\rightarrow$ C\\_1'
    """
    arrow = r"$\rightarrow$"
    parts = printable(text).split("->")
    return arrow.join("".join(_SPECIAL.get(c, c) for c in part) for part in parts)


def to_latex(report: Report) -> str:
    r"""The tables of all test sets, to be \input; the preamble needs booktabs and tabularx."""
    return "\n".join(_table(report, test_set) for test_set in report.sets)


def paper(name: str, tables: str) -> str:
    r"""A document of its own around table.tex, which shows that the tables compile.

    pdfLaTeX has no font for most scripts and would stop: there it prints such a character's code.

    Args:
        tables: the content of table.tex.
    """
    unknown = sorted({c for c in tex(name) + tables if ord(c) > 0x17F} - _KNOWN)
    declared = (rf"\DeclareUnicodeCharacter{{{ord(c):04X}}}{{{_stand_in(c)}}}" for c in unknown)
    lines = (
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{booktabs,tabularx}",
        r"\setlength{\belowcaptionskip}{6pt}",
        *((r"\ifdefined\DeclareUnicodeCharacter", *declared, r"\fi") if unknown else ()),
        r"\begin{document}",
        rf"\section*{{{tex(name)}}}",
        r"\input{table}",
        r"\nocite{*}",
        r"\bibliographystyle{plain}",
        r"\bibliography{references}",
        r"\end{document}",
    )
    return "\n".join(lines) + "\n"


def _stand_in(character: str) -> str:
    """What pdfLaTeX prints for a character."""
    if character in _GREEK:
        return rf"\ensuremath{{\{_GREEK[character]}}}"
    return rf"\texttt{{U+{ord(character):04X}}}"


def _table(report: Report, test_set: SetFacts) -> str:
    lines = report.lines[test_set.name]
    best = _best(lines, test_set)
    body = [_row(line, test_set, best) for line in lines if line.means]
    heads = " & ".join(["", "Model", *map(tex, test_set.measures)])
    columns = r"l>{\raggedright\arraybackslash\hangindent=1em}X" + "r" * len(test_set.measures)
    return "\n".join(
        (
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{_caption(report, test_set)}}}",
            rf"\label{{tab:{_KEY.sub('-', test_set.name).strip('-').lower()}}}",
            rf"\begin{{tabularx}}{{\linewidth}}{{@{{}}{columns}@{{}}}}",
            r"\toprule",
            rf"{heads} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabularx}",
            r"\end{table}",
            "",
        )
    )


def _caption(report: Report, test_set: SetFacts) -> str:
    sentences = [f"{tex(fact).rstrip('.')}." for fact in test_set.title]
    if report.mode == "compare":
        sentences.append(
            "A superscript names the rows that a model is significantly better than (paired "
            f"t-test of all pairs, Holm's correction, $p < {report.statistics.alpha:g}$)."
        )
    return " ".join(sentences)


def _best(lines: list[Line], test_set: SetFacts) -> dict[str, float]:
    """Measure -> the highest mean of a row that is no oracle."""
    sound = [line for line in lines if line.means and line.row.kind != "oracle"]
    return {m: max((line.means[m] for line in sound), default=0.0) for m in test_set.measures}


def _row(line: Line, test_set: SetFacts, best: dict[str, float]) -> str:
    seeds = len(line.row.seeds)
    name = tex(line.row.name) + (f" ({seeds} seeds)" if seeds > 1 else "")
    if line.row.kind == "oracle":
        name = rf"\emph{{{LABELS['oracle']}}}" if line.row.name == "oracle" else name
    cells = [line.label, name]
    for measure in test_set.measures:
        mean = figure(line.means[measure])
        is_best = tested(measure) and line.row.kind != "oracle"
        is_best = is_best and line.means[measure] == best[measure]
        letters = line.letters[measure]
        above = rf"\textsuperscript{{{letters}}}" if letters else ""
        cells.append((rf"\textbf{{{mean}}}" if is_best else mean) + above)
    return " & ".join(cells) + r" \\"
