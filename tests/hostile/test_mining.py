"""Mining tells: copies in every disguise, questions asked twice, judgements of nothing.

Every row of the tables is an input that no other test tries.
"""

# ruff: noqa: RUF001 - letters that look like others are what is tried
from __future__ import annotations

import json
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from bm25_tiny import Bm25Options
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.candidates.bm25.source import Bm25
from raypipe.commands.checks import check_held_out
from raypipe.commands.query_facts import query_facts
from raypipe.commands.query_sets import NamedQueries, contents
from raypipe.config import ConfigError
from raypipe.datasets.steps import Queries, QuerySet
from raypipe.groups.form import Groups, Material, form_group
from raypipe.groups.samplers import TopK
from raypipe.recipe.experiment import Experiment
from raypipe.recipe.reading import load
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.tables.plain_text import normalised, text_hash

quick = settings(deadline=None, max_examples=60, database=None)
UNSEEN = "\u200b\u200c\u200d\u200e\u00ad\u2060\ufeff\ufe0f\u034f\U000e0061\x7f"


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


# --- copies of the positive, and the query itself -------------------------------------------------

COPIES = {
    "zero-width spaces between Thai words": ("ภูเขา\u200bไฟ\u200bฟูจิ", "ภูเขาไฟฟูจิ"),
    "a byte order mark before the title": ("\ufeffMount Fuji", "Mount Fuji"),
    "soft hyphens of a PDF": ("vol\u00adca\u00adno in Ja\u00adpan", "volcano in Japan"),
    "joined and single emoji": ("\U0001f468\u200d\U0001f469 family", "\U0001f468\U0001f469 family"),
    "an emoji with and without its colour form": ("I \u2764\ufe0f Fuji", "I \u2764 Fuji"),
    "a mark of direction at the end": ("קפה בתל אביב\u200f", "קפה בתל אביב"),
    "Persian with a non-joiner": ("می\u200cخواهم", "میخواهم"),
    "Korean as single letters": (nfd("한국의 산"), "한국의 산"),
    "half width kana": ("ﾌｼﾞｻﾝ ﾉ ﾀｶｻ", "フジサン ノ タカサ"),
    "Japanese with ideographic spaces": ("富士山\u3000の\u3000高さ", "富士山 の 高さ"),
    "ligatures of a PDF": ("eﬃcient ﬁre", "efficient fire"),
    "Turkish capitals with a dot": ("İSTANBUL", "i̇stanbul"),
    "a Greek final sigma": ("ΟΔΟΣ", "οδος"),
    "Arabic as it is drawn": ("ﻻ ﻪ", "لا ه"),
    "Roman numerals and squares": ("Louis ⅩⅣ, 5 km²", "louis xiv, 5 km2"),
    "marks in another order": ("a\u0323\u0307", "a\u0307\u0323"),
    "ends of lines as CR LF, tabs": ("a\r\n\tb\x0b c", "A b C"),
    "no-break and thin spaces": ("5\u00a0000\u2009km", "5 000 km"),
    "control characters of a terminal": ("Fuji\x08\x7f san", "Fuji san"),
    "the Kelvin and the Angstrom sign": ("5 \u212a, 3 \u212b", "5 k, 3 å"),
    "Thai with a composed vowel": ("น\u0e33", "น\u0e4d\u0e32"),
    "language tags of an old standard": ("Fuji\U000e0001\U000e0065", "fuji"),
}


def negatives(
    copy: str, positive: str, query: str = "which?", **fields
) -> tuple[list[str], Counter]:
    """The negatives of a group whose candidates are the positive, its copy and another text."""
    texts = {"pos": positive, "copy": copy, "other": f"{positive} no"}
    material = Material(
        hash_of=lambda d: text_hash(texts[d]), query_hash=text_hash(query), text=texts.__getitem__
    )
    counts: Counter[str] = Counter()
    groups = Groups(negatives=TopK(count=2), **fields)
    listed = ["copy", "pos", "other"]
    formed = form_group(
        groups, "q", listed, [1, 2, 3], {"pos": 1}, 1, material=material, counts=counts
    )
    assert not isinstance(formed, str), formed
    return formed.doc_ids[1:], counts


@pytest.mark.parametrize("case", COPIES)
def test_copies_of_the_positive_are_no_negatives(case):
    for copy, positive in (COPIES[case], COPIES[case][::-1]):
        chosen, counts = negatives(copy, positive)
        assert chosen == ["other"], case
        assert counts["removed_as_copies_of_relevant_documents"] == 1
        assert negatives(copy, positive, copies="keep")[0] == ["copy", "other"]


@pytest.mark.parametrize("case", COPIES)
def test_the_query_itself_is_no_negative(case):
    query, copy = COPIES[case]
    chosen, counts = negatives(copy, "an answer", query=query)
    assert chosen == ["other"] and counts["removed_as_the_query_itself"] == 1


OTHERS = {
    "another number": ("5 km", "6 km"),
    "a sign before a number": ("-5 degrees", "5 degrees"),
    "words that run together": ("in form", "inform"),
    "a Japanese vowel mark": ("ハハ", "ババ"),
    "Thai tones": ("ไหม", "ไม่"),
    "an accent": ("resume", "résumé"),
    "another emoji": ("\U0001f600", "\U0001f601"),
    "capitals of another alphabet": ("РОТ", "POT"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_texts_stay_negatives(case):
    chosen, counts = negatives(*OTHERS[case])
    assert chosen == ["copy", "other"] and not counts.total()


@quick
@given(
    st.text(min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(UNSEEN)), max_size=5),
)
def test_what_nobody_sees_is_no_difference(text, marks):
    """Property: wherever such characters are put in."""
    changed = text
    for place, mark in marks:
        changed = changed[:place] + mark + changed[place:]
    unseen = all(unicodedata.category(c) not in ("Mn", "Mc", "Me") for c in text)
    if unseen and text.isprintable():  # a mark may part what it stood on
        assert normalised(changed) == normalised(text) or unicodedata.combining(text[0])


@quick
@given(st.text(max_size=12))
def test_forms_and_case_are_no_difference(text):
    """Property: NFC, NFD, NFKC and NFKD of a text are one text, and normalising is settled."""
    forms = {normalised(unicodedata.normalize(f, text)) for f in ("NFC", "NFD", "NFKC", "NFKD")}
    assert len(forms) == 1


# --- questions in two splits ----------------------------------------------------------------------


@pytest.fixture
def own(recipe, beir_folder, tmp_path) -> Path:
    """The recipe on a copy of the data that the test may change: `tmp_path / "own"`."""
    shutil.copytree(beir_folder, tmp_path / "own")
    recipe.write_text(recipe.read_text().replace(str(beir_folder), str(tmp_path / "own")))
    return recipe


ASKED = {
    "in capitals, with a question's spaces": lambda text: f" {text.upper()}  ",
    "with a zero-width space": lambda text: f"{text[:3]}\u200b{text[3:]}",
    "in full width": lambda text: "".join(
        chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text
    ),
    "with a soft hyphen and a byte order mark": lambda text: f"\ufeff{text[:2]}\u00ad{text[2:]}",
    "with no-break spaces": lambda text: text.replace(" ", "\u00a0"),
}


@pytest.mark.parametrize("case", ASKED)
def test_a_question_of_training_in_the_test_set(case, own, tmp_path):
    path = tmp_path / "own" / "queries.jsonl"
    rows = {row["_id"]: row for row in map(json.loads, path.read_text().splitlines())}
    rows["q48"]["text"] = ASKED[case](rows["q00"]["text"])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    experiment = load(Experiment, own)
    (note,) = check_held_out([experiment], contents(Builder(experiment.store()), make=False))
    assert note.startswith("data.test: 1 of its 12 queries have the text of a query in data.train")
    assert "'q48'" in note


# --- judgements of what is not there --------------------------------------------------------------

IDS = {
    "whole floats, as pandas writes them": ("12.0", "12"),
    "leading zeros lost": ("12", "0012"),
    "a zero-width space": ("d\u200b1", "d1"),
    "a prefix of the collection": ("msmarco:12", "12"),
    "full width digits": ("１２", "12"),
}


@pytest.mark.parametrize("case", IDS)
@pytest.mark.filterwarnings("ignore:.*has a character that nobody sees:UserWarning")
def test_judgements_of_other_ids_are_refused(case, tmp_path):
    judged, there = IDS[case]
    (tmp_path / "set" / "qrels").mkdir(parents=True)
    for name, row in (
        ("corpus", {"_id": there, "text": "t"}),
        ("queries", {"_id": "q", "text": "w"}),
    ):
        (tmp_path / "set" / f"{name}.jsonl").write_text(json.dumps(row))
    text = f"query-id\tcorpus-id\tscore\nq\t{judged}\t1\n"
    (tmp_path / "set" / "qrels" / "test.tsv").write_text(text)
    queries = Queries(QuerySet(dataset=f"beir:{tmp_path / 'set'}", split="test"), False)
    builder = Builder(Store(str(tmp_path / "store")))
    named = NamedQueries("data.test", queries, Bm25())
    with pytest.raises(ConfigError, match="none of the relevant ones is there") as error:
        query_facts([named], builder, contents(builder, make=True))
    assert "1 of 1 judged documents are not in the collection" in str(error.value)


# --- terms ----------------------------------------------------------------------------------------

TERMS = {
    "Korean has spaces": ("한국 산은 높다", ["한국", "산은", "높다"]),
    "Thai by three letters": ("ภูเขา", ["ภูเ", "ูเข", "เขา"]),
    "emoji are no terms": ("\U0001f600 \U0001f5fb fuji", ["fuji"]),
    "Chinese beside Latin letters": ("GPU卡", ["gpu", "卡"]),
    "half width kana by neighbours": ("ﾌｼﾞ", ["ﾌ", "ｼ", "ﾞ", "ﾌｼ", "ｼﾞ"]),
    "nothing that is a word": ("!? — …", []),
}


@pytest.mark.parametrize("case", TERMS)
def test_terms_of_ngrams(case):
    text, expected = TERMS[case]
    options = Bm25Options(analyser="ngrams", stemmer=None, stopwords=None)
    assert sorted(options.tokenize([text])[0]) == sorted(expected)
