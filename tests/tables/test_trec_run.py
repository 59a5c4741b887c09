from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.evaluation.ranking import ranking
from raypipe.records import CANDIDATES
from raypipe.tables import flat
from raypipe.tables import text_columns as columns
from raypipe.tables import trec_run as trec_files
from raypipe.tables.trec_run import read_trec_run


def written(folder: Path, text: str | bytes, name: str = "x.run") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_rank_column_is_the_order_and_ties_go_by_doc_id(tmp_path):
    text = (
        "q2 Q0 b 0 1.5 t\nq1 Q0 d 7 9 t\nq2 Q0 a 3 99 u\nq1\tQ0\tc\t7\t-1\tt\nq1 Q0 e 5 0 t \r\n\n"
    )
    table, counts = read_trec_run(written(tmp_path, text))
    assert table.schema == CANDIDATES
    assert table.to_pylist() == [
        {
            "query_id": "q2",
            "doc_ids": ["b", "a"],
            "ranks": [1, 2],
            "scores": [1.5, 99.0],
            "sources": ["t", "u"],
        },
        {
            "query_id": "q1",
            "doc_ids": ["e", "c", "d"],
            "ranks": [1, 2, 3],
            "scores": [0.0, -1.0, 9.0],
            "sources": ["t", "t", "t"],
        },
    ]
    none = {"other_queries": 0, "duplicates": 0, "beyond_depth": 0}
    assert counts == {"lines": 5, "kept": 5, **none}


def test_duplicates_keep_the_best_rank_and_every_line_is_counted(tmp_path):
    text = "q Q0 a 5 1 t\nq Q0 b 2 2 t\nq Q0 a 1 3 t\nq Q0 c 9 4 t\nother Q0 a 1 1 t\n"
    table, counts = read_trec_run(written(tmp_path, text), query_ids=["q"], depth=2, source="mine")
    assert ranking(table) == {"q": ["a", "b"]}
    assert table["scores"].to_pylist() == [[3.0, 2.0]]
    assert table["sources"].to_pylist() == [["mine", "mine"]]
    dropped = {"other_queries": 1, "duplicates": 1, "beyond_depth": 1}
    assert counts == {"lines": 5, "kept": 2, **dropped}


@settings(deadline=None)
@given(
    lines=st.lists(
        st.tuples(st.sampled_from("pqr"), st.sampled_from("abcdefgé"), st.integers(-3, 6)),
        max_size=60,
    ),
    depth=st.none() | st.integers(1, 4),
    space=st.sampled_from([" ", "\t", "  ", " \t"]),
    end=st.sampled_from(["\n", "\r\n", " \n", "\n\n"]),
    block=st.integers(20, 200),
    settle=st.integers(1, 5),
)
def test_reader_equals_the_naive_reader_at_any_block_size(
    lines, depth, space, end, block, settle, tmp_path_factory
):
    text = "".join(f"{q} Q0 {d} {r} {-r} t".replace(" ", space) + end for q, d, r in lines)
    path = written(tmp_path_factory.mktemp("runs"), text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "BLOCK", block)
        patch.setattr(flat, "_SETTLED", settle)
        patch.setattr(trec_files, "_SETTLE", settle)
        table, counts = read_trec_run(path, depth=depth)
    best: dict[str, dict[str, int]] = {}
    for q, d, r in lines:
        docs = best.setdefault(q, {})
        docs[d] = min(r, docs.get(d, r))
    expected = {q: sorted(docs, key=lambda d: (docs[d], d))[:depth] for q, docs in best.items()}
    assert ranking(table) == expected
    assert list(ranking(table)) == list(expected)  # order of first appearance
    assert counts.pop("lines") == sum(counts.values()) == len(lines)


@settings(deadline=None)
@given(
    queries=st.lists(st.sampled_from(["p", "q", "0x1", '"r"', "é"]), max_size=30),
    ranks=st.lists(st.sampled_from(["1", "02", "+3", "1_0", "-4", "0x5"]), min_size=1),
    scores=st.lists(st.sampled_from(["1", ".5", "1e-3", "+2.", "1_0.5", "3.4e38"]), min_size=1),
    wanted=st.none() | st.just({"p", "é"}),
    block=st.integers(20, 100),
)
def test_both_ways_of_reading_agree(queries, ranks, scores, wanted, block, tmp_path_factory):
    text = "".join(
        f"{q} Q0 d{i} {ranks[i % len(ranks)]} {scores[i % len(scores)]} t{i % 2}\n"
        for i, q in enumerate(queries)
    )
    path = written(tmp_path_factory.mktemp("runs"), text)

    def read(careful: bool):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(columns, "BLOCK", block)
            if careful:
                patch.setattr(columns.TextBlock, "table", lambda *_: None)
            try:
                table, counts = read_trec_run(path, wanted)
            except ValueError as error:
                return str(error)
            return table.to_pylist(), counts

    assert read(careful=False) == read(careful=True)


def test_well_formed_blocks_take_the_fast_way(tmp_path, monkeypatch):
    monkeypatch.setattr(columns.TextBlock, "rows", lambda *_: pytest.fail("read line by line"))
    tidy = "q Q0 a 1 3.0 t\nq Q0 é 2 -1e-3 t\n"
    for text in (tidy, tidy.replace(" ", "\t"), tidy.replace("\n", " \r\n\n"), "\n" + tidy[:-1]):
        table, _ = read_trec_run(written(tmp_path, text))
        assert ranking(table) == {"q": ["a", "é"]}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q Q0 d 1 2.0", r"x.run, line 2: expected six columns \(query_id Q0 .*\), found 5"),
        ("q Q0 d 1 2.0 my tag", r"line 2: expected six columns .* found 7: 'q Q0 d 1 2.0 my tag'"),
        ("q  d 1 2.0 t", r"line 2: expected six columns .* found 5"),
        ("q Q0 d 1.0 2.0 t", r"line 2: expected an integer rank and a score .* found '1.0'"),
        ("q Q0 d 0x1 2.0 t", r"line 2: expected an integer rank and a score .* found '0x1'"),
        ("q Q0 d 1 1e39 t", r"line 2: expected a finite rank and score, found .*'1e39'"),
        ("q Q0 d one 2.0 t", r"line 2: expected an integer rank and a score .* found 'one'"),
        ("q Q0 d ٣ 2.0 t", r"line 2: expected an integer rank and a score .* found '٣' and '2.0'"),
        ("q Q0 d 1_0 2.0 t", r"line 2: expected an integer rank and a score .* found '1_0'"),
        ("q Q0 d true 2.0 t", r"line 2: expected an integer rank and a score .* found 'true'"),
        ("q Q0 d nan 2.0 t", r"line 2: expected an integer rank and a score .* found 'nan'"),
        ("q Q0 d 1 ٣.5 t", r"line 2: expected an integer rank and a score"),
        ("q Q0 d 1 1_0.5 t", r"line 2: expected an integer rank and a score .*'1_0.5'"),
        (f"q Q0 d {'9' * 10_000} 2 t", r"line 2: expected an integer rank and a score"),
        (f"q Q0 d 1 {'9' * 10_000} t", r"line 2: expected a finite rank and score"),
        (f"q Q0 {'d' * 5000} 1 2 t", r"line 2: expected an id of at most 4,096 characters, found"),
        (f"{'q' * 1_000_000} Q0 d 1 2 t", r"line 2: expected an id of at most 4,096 characters"),
        ("q Q0 d 1 high t", r"line 2: expected an integer rank and a score .* 'high'"),
        ("q Q0 d 1 nan t", r"line 2: expected a finite rank and score, found .*'nan'"),
        ("q Q0 d 99999999999999999999 1 t", r"line 2: expected a finite rank"),
    ],
)
def test_malformed_line_names_file_line_and_expectation(tmp_path, line, message):
    path = written(tmp_path, f"q Q0 a 1 3.0 t\n{line}\n")
    with pytest.raises(ValueError, match=message) as error:
        read_trec_run(path)
    assert len(str(error.value)) < 400  # however long the line is


def test_malformed_line_of_an_unwanted_query_is_an_error_too(tmp_path):
    with pytest.raises(ValueError, match="line 1: expected six columns"):
        read_trec_run(written(tmp_path, "other Q0 a 1\n"), query_ids={"q"})


def test_truncated_gzip_and_broken_utf8_name_the_file(tmp_path):
    packed = gzip.compress("".join(f"q Q0 d{i * i} {i} 1 t\n" for i in range(500)).encode())
    with pytest.raises(ValueError, match=r"cut\.run\.gz: expected a complete gzip file.*fetch"):
        read_trec_run(written(tmp_path, packed[: len(packed) // 2], "cut.run.gz"))
    damaged = packed[:30] + bytes([packed[30] ^ 0xFF]) + packed[31:]
    with pytest.raises(ValueError, match=r"bad\.run\.gz: expected a complete gzip file"):
        read_trec_run(written(tmp_path, damaged, "bad.run.gz"))
    with pytest.raises(ValueError, match=r"latin\.run, line 2: expected UTF-8.*iconv"):
        text = b"q Q0 a 1 1 t\nother Q0 caf\xe9 1 1 t\n"
        read_trec_run(written(tmp_path, text, "latin.run"), query_ids={"q"})


def test_byte_order_mark_is_no_part_of_the_first_query_id(tmp_path):
    table, _ = read_trec_run(written(tmp_path, "\ufeffq Q0 a 1 1 t\n"), query_ids={"q"})
    assert ranking(table) == {"q": ["a"]}


def test_empty_file_gives_an_empty_table(tmp_path):
    table, counts = read_trec_run(written(tmp_path, ""))
    assert (table.schema, table.num_rows, counts["lines"]) == (CANDIDATES, 0, 0)


def test_depth_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="depth of at least 1, found 0"):
        read_trec_run(written(tmp_path, ""), depth=0)


def test_line_numbers_count_on_over_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK", 64)
    text = "q Q0 a 1 3.0 t\r\n\r\n" * 50
    with pytest.raises(ValueError, match=r"x\.run, line 101: expected six columns"):
        read_trec_run(written(tmp_path, text + "q Q0 a\r\n" + text))


def test_lines_of_unwanted_queries_need_only_their_columns(tmp_path):
    text = "other Q0 a one nan t\nq Q0 a 1 2 t\n"
    table, counts = read_trec_run(written(tmp_path, text), query_ids={"q"})
    assert ranking(table) == {"q": ["a"]} and counts["other_queries"] == 1


def test_a_file_without_lines_is_no_run(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK", 64)
    with pytest.raises(ValueError, match=r"line 1: expected a text file, found no line end in \d+"):
        read_trec_run(written(tmp_path, b"\0" * 1000))


def test_blank_lines_and_gzip_members_are_read_on(tmp_path):
    packed = gzip.compress(b"\nq Q0 a 1 1 t\n") + gzip.compress(b"\n \nq Q0 b 2 1 t")
    table, counts = read_trec_run(written(tmp_path, packed, "x.run.gz"))
    assert ranking(table) == {"q": ["a", "b"]} and counts["lines"] == 2


def test_ids_that_look_like_others_are_counted_with_line_and_example(tmp_path):
    path = written(tmp_path, "q Q0 a 1 2 t\nq Q0 a\u200b 2 1 t\nq\u202e Q0 a 1 1 t\n")
    with pytest.warns(UserWarning, match=r"x\.run, line 3: the id 'q.*U\+202E"):
        _, counts = read_trec_run(path)
    assert counts["kept"] == 3 and counts["ids_with_invisible_characters"] == 2


def test_a_packed_line_of_gigabytes_ends_the_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "BLOCK", 1000)
    bomb = gzip.compress(b"q Q0 a 1 2 t\n" + b"q" * 10_000_000)
    with pytest.raises(
        ValueError, match=r"line 2: expected a text file, found no line end in \d+ "
    ):
        read_trec_run(written(tmp_path, bomb, "x.run.gz"))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_packed_files_marks_and_ends_of_lines_change_nothing(tmp_path, ends, mark, pack):
    text = mark + "q Q0 a 1 2.5 t\nq Q0 b 2 1.5 t\n".replace("\n", ends)
    table, counts = read_trec_run(written(tmp_path, pack(text.encode())))
    assert ranking(table) == {"q": ["a", "b"]} and counts["lines"] == 2
    assert table["sources"].to_pylist() == [["t", "t"]]
