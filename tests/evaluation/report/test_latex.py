"""LaTeX tables: sound for a parser, whatever rows are called, with the letters of the report."""

from __future__ import annotations

import re

import pytest
from report_rows import FULL, report

from raypipe.evaluation.report.latex import paper, tex, to_latex
from raypipe.evaluation.results import Row


def environments(text: str) -> list[str]:
    """Names in the order of their ends; fails where one ends that was not begun last."""
    opened: list[str] = []
    ended = []
    for verb, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if verb == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
            ended.append(name)
    assert opened == []
    return ended


def bodies(text: str) -> list[list[list[str]]]:
    """Table -> row -> cells."""
    parts = re.findall(r"\\midrule\n(.*?)\\bottomrule", text, re.DOTALL)
    split = re.compile(r"(?<!\\) & ")
    return [
        [split.split(line.removesuffix(r" \\")) for line in part.splitlines()] for part in parts
    ]


def test_a_table_for_each_set_with_a_cell_for_each_measure():
    text = to_latex(FULL)
    assert environments(text) == ["tabularx", "table"] * 2
    first, second = bodies(text)
    assert {len(cells) for cells in first} == {5} and {len(cells) for cells in second} == {3}
    assert len(first) == 7  # the row that failed has no figures
    assert text.count("{") == text.count("}")


def test_means_letters_and_the_best_row():
    rows = {cells[1]: cells for cells in bodies(to_latex(FULL))[0]}
    lines = {line.row.name: line for line in FULL.lines["test"]}
    line = lines["MiniLM | mnrl > kl"]
    letters = line.letters["nDCG@10"]
    name = r"MiniLM \textbar{} mnrl \textgreater{} kl (3 seeds)"
    mean = f"{line.means['nDCG@10']:.3f}"[1:]
    assert letters and rows[name][2] == rf"\textbf{{{mean}}}\textsuperscript{{{letters}}}"
    assert rows["BM25"][2] == "." + f"{lines['BM25'].means['nDCG@10']:.3f}"[2:]
    assert r"\textbf" not in rows[r"\emph{oracle}"][2]  # it is no system


def test_the_caption_says_what_letters_are():
    assert "12 test queries, 1,000 documents." in to_latex(FULL)
    assert "Holm's correction, $p < 0.05$" in to_latex(FULL)
    assert "A superscript" not in to_latex(report(mode="search"))


@pytest.mark.parametrize(
    "name", ["100% \\input{x}", "a_b & c#d~e^f$", "{", "x | y -> z", "\x1b[1m"]
)
def test_no_name_is_a_command(name):
    row = FULL.rows[0]
    named = Row(name, row.kind, row.results)
    text = to_latex(report(rows=(named,), references=()))
    plain = re.sub(r"\\[\\&%$#_{}]|\\text\w+\{\}|\\rightarrow", "", text)
    assert environments(plain) == ["tabularx", "table"] * 2
    assert plain.count("{") == plain.count("}") and r"\input{x}" not in plain
    assert {len(cells) for cells in bodies(text)[0]} == {5}


def test_text():
    assert tex("A & B -> C_1") == r"A \& B $\rightarrow$ C\_1"
    assert tex("\\") == r"\textbackslash{}"


def test_the_document_around_the_tables():
    text = paper("50% & more", to_latex(FULL))
    assert environments(text) == ["document"]
    assert r"\section*{50\% \& more}" in text and "Unicode" not in text


def test_the_document_declares_what_pdflatex_cannot_print():
    row = FULL.rows[0]
    tables = to_latex(
        report(rows=(Row("é \u2013 \u03bb \u4e2d", row.kind, row.results),), references=())
    )
    assert "é \u2013 \u03bb \u4e2d" in tables  # other engines print all of it
    declared = re.findall(r"\\DeclareUnicodeCharacter\{(\w+)\}\{(.*)\}\n", paper("x", tables))
    assert declared == [("03BB", r"\ensuremath{\lambda}"), ("4E2D", r"\texttt{U+4E2D}")]
