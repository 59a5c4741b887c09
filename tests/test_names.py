"""Any text is shown as text by every place, and a plain name is not changed."""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from xml.etree import ElementTree

import pytest
from any_names import PLAIN, SEEN, markdown_blocks, names
from hypothesis import given, settings
from rich.console import Console

from raypipe import names as made
from raypipe.evaluation.report import plots

VISIBLE = ["first pass", "..", "$x{", "[/red]", "日本語", "👩\u200d🔬"]
quick = settings(max_examples=100, deadline=None)


def line(text: str) -> str:
    """The text as one line of a page has it."""
    return " ".join(made.printable(text).split())


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PLAIN, *VISIBLE])
def test_a_name_that_can_be_seen_is_a_name(name):
    assert made.checked_name(name) == name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("", "''"),
        (" \xa0", "a name"),
        ("a\nb", "U\\+000A .* as character 2 of 'a b'; leave it out"),
        ("a\x00", "U\\+0000"),
        ("\x1b[31m", "U\\+001B"),
        ("a\u2028", "U\\+2028 \\(LINE SEPARATOR\\)"),
        ("\u202eexe", "U\\+202E \\(RIGHT-TO-LEFT OVERRIDE\\)"),
        ("a\u200bb", "U\\+200B \\(ZERO WIDTH SPACE\\)"),
        ("\ud83d", "U\\+D83D"),
        ("\ufffe", "U\\+FFFE"),
        ("x" * 300, "at most 200 characters, found 300: 'x+…x+'; shorten it"),
    ],
)
def test_a_name_that_not_every_place_shows_is_refused(name, found):
    with pytest.raises(ValueError, match=found) as error:
        made.checked_name(name)
    assert made.printable(str(error.value)) == str(error.value)


# --- what is made safe ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_name_stays_as_it_is(name):
    assert made.printable(name) == made.encodable(name) == made.plot_text(name) == name
    assert made.markdown_text(name) == name
    assert made.markdown_cell(name) == name.replace("|", "\\|")
    assert made.markdown_code(name) == f"`{name}`"
    assert made.trec_token(name) == name.replace(" ", "_")
    assert made.path_below(name, "-0123") == f"{name}-0123"
    assert str(made.rich_text(name)) == name


@given(names)
@quick
def test_a_path_stays_below_its_folder(name):
    for part in (made.path_part(name), made.path_part(name, ".trec")):
        assert "/" not in part and part not in ("", ".", "..")
        assert len(part.encode()) <= 255 and made.printable(part) == part
        assert made.path_part(part) == part
    below = PurePosixPath(made.path_below(name, "-0123456789abcdef"))
    assert not below.is_absolute() and ".." not in below.parts
    assert below.name.endswith("-0123456789abcdef")
    assert all(len(part.encode()) <= 255 for part in below.parts)


def test_no_two_names_have_one_path():
    parts = {made.path_part(name) for name in SEEN} | {made.path_part("x" * 301)}
    assert len(parts) == len(set(SEEN)) + 1
    assert made.path_part("con") != "con" and made.path_part("con", "-01") == "con-01"


@given(names)
@quick
def test_the_tag_of_a_run_is_one_column(name):
    token = made.trec_token(name)
    assert token.split() == [token] and token.encode().split() == [token.encode()]


@given(names)
@quick
def test_in_markdown_a_name_is_text(name):
    text, cell, shown = made.markdown_text(name), made.markdown_cell(name), line(name)
    if not shown:
        return
    blocks = markdown_blocks(
        f"# {text}\n\n{text}\n\n- {text}\n- y\n\n| h | {cell} |\n| --- | --- |\n| {cell} | z |\n"
    )
    found = [("h1", shown), ("p", shown), ("p", shown), ("p", "y")]
    found += [("th", "h"), ("th", shown), ("td", shown), ("td", "z")]
    assert blocks == [(*block, set()) for block in found]
    (code,) = markdown_blocks(f"x {made.markdown_code(name)} y")
    assert code == ("p", f"x {shown} y", {"code_inline"})


def test_a_figure_is_no_markup():
    for text in ("<.001", "-.012", "+.250", ".431 ab [.3, .5]", "3.5"):
        assert made.markdown_cell(text) == text


@given(names)
@quick
def test_for_rich_a_name_is_text(name):
    out = io.StringIO()
    Console(file=out, width=10_000).print(made.rich_text(name))
    assert out.getvalue() == f"{made.printable(name)}\n" and "\x1b" not in out.getvalue()


@given(names)
@settings(max_examples=25, deadline=None)
def test_in_a_plot_a_name_is_text(name):
    figure = plots._figure(2, 1)
    axis = figure.subplots()
    axis.plot([0, 1], label=made.plot_text(name))
    axis.set_title(made.plot_text(name))
    (label,) = axis.get_legend_handles_labels()[1] if name else ("",)
    drawing = ElementTree.fromstring(plots.svg(figure))
    texts = ["".join(node.itertext()) for node in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert made.shortened(name).strip() in map(str.strip, texts)
    assert label.replace("\\$", "$").strip() == made.shortened(name).strip()


def test_a_long_name_shows_its_ends():
    assert made.shortened("a" * 50 + "b" * 50, 9) == "aaaa…bbbb"
    assert made.shortened("a" * 80) == "a" * 80


def test_numbers_of_things():
    assert made.counted(1, "query") == "1 query" and made.counted(1200, "query") == "1,200 queries"
    assert made.counted(0, "distinct stage") == "0 distinct stages"
    assert made.counted(2, "folder of Ray Tune") == "2 folders of Ray Tune"
