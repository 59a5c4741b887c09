"""What a step computes: which groups, in which blocks, with which targets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.inference.pairs import Template, length_batches
from raypipe.inference.token_reader import TokenReader, token_table
from raypipe.inference.truncation import Budgets, LongestFirst
from raypipe.records import GROUPS
from raypipe.train.batches import Batcher, Block, QueryOrder, Targets
from raypipe.train.group_reader import GroupReader

CLS, SEP, QUERY, DOC = 1, 2, 1000, 2000
TEMPLATE = Template((CLS,), (SEP,), (SEP,), ((0,), 0, (0,), 1, (1,)), pad_id=0, pad_type=0)

# --- order ---------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 99))
def test_every_epoch_takes_every_group_once(groups, per_step, seed):
    order = QueryOrder(groups, per_step, seed)
    steps = -(-3 * groups // per_step)
    taken = [order.rows(step) for step in range(steps)]
    assert {len(rows) for rows in taken} == {per_step}  # across epoch ends too
    flat = [row for rows in taken for row in rows]
    for epoch in range(3):
        assert sorted(flat[epoch * groups : (epoch + 1) * groups]) == list(range(groups))


def test_the_order_depends_on_seed_and_step_only():
    order, fresh = QueryOrder(50, 7, 1), QueryOrder(50, 7, 1)
    forward = [order.rows(step) for step in range(20)]
    assert [fresh.rows(step) for step in reversed(range(20))] == forward[::-1]  # no state
    assert QueryOrder(50, 7, 2).rows(0) != forward[0]
    flat = [row for rows in forward for row in rows]
    assert flat[:50] != flat[50:100] and flat[:50] != sorted(flat[:50])
    resized = [row for step in range(35) for row in QueryOrder(50, 4, 1).rows(step)]
    assert resized == flat[:140]  # queries per step cut the same sequence


def test_workers_share_a_step_completely():
    rows = QueryOrder(50, 8, 1).rows(3)
    for workers in (1, 2, 3):
        shares = [rows[rank::workers] for rank in range(workers)]
        assert sorted(row for share in shares for row in share) == sorted(rows)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


# --- blocks --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """12 groups of 2 to 5 documents; token ids name their text: QUERY + q, DOC + d."""
    root = tmp_path_factory.mktemp("batches")
    queries = [[QUERY + q] * (1 + q % 4) for q in range(12)]
    docs = [[DOC + d] * (1 + 7 * d % 23) for d in range(40)]
    groups = []
    for row in range(12):
        size = 2 + row % 4
        groups.append(
            {
                "query_index": 11 - row,
                "doc_indices": [(5 * row + 3 * i) % 40 for i in range(size)],
                "relevance": [3, 1, 0, -1, 0][:size],
                "teacher_values": [5.0, 4.0, np.nan, 2.0, 1.0][:size],
                "ranks": list(range(size)),
            }
        )
    tables = {
        "queries": token_table(queries, 5000),
        "docs": token_table(docs, 5000),
        "groups": pa.Table.from_pylist(groups, schema=GROUPS),
    }
    for name, table in tables.items():
        (root / name).mkdir()
        with pa.ipc.new_file(str(root / name / "part-00000.arrow"), table.schema) as writer:
            writer.write_table(table)
    return root


def batcher_of(folder: Path, budget: int, targets: Targets | None = None, max_length=20) -> Batcher:
    return Batcher(
        GroupReader(folder / "groups"),
        TokenReader(folder / "queries"),
        TokenReader(folder / "docs"),
        TEMPLATE,
        LongestFirst(max_length=max_length),
        targets or Targets("labels", "score", 1),
        budget,
    )


def read_pairs(block: Block) -> dict[tuple[int, int], tuple[int, int]]:
    """(row, column) of the score matrix to (query, document), read off the model inputs."""
    texts_by_cell = {}
    for positions, inputs in block.batches:
        assert set(inputs) == {"input_ids", "attention_mask", "token_type_ids"}
        for position, ids, mask in zip(
            positions, inputs["input_ids"], inputs["attention_mask"], strict=True
        ):
            real = ids[mask == 1]
            inside = set(real.tolist()) - {CLS, SEP}
            query = {i - QUERY for i in inside if i < DOC}
            doc = {i - DOC for i in inside if i >= DOC}
            assert len(query) == len(doc) == 1 and len(real) <= 20 and not ids[mask == 0].any()
            place = (int(block.cells_T[0][position]), int(block.cells_T[1][position]))
            assert place not in texts_by_cell
            texts_by_cell[place] = (query.pop(), doc.pop())
    return texts_by_cell


@settings(deadline=None, max_examples=40, database=None)
@given(st.lists(st.integers(0, 11), min_size=1, max_size=12), st.integers(4, 600))
def test_blocks_hold_every_pair_once(folder, rows, budget):
    batcher = batcher_of(folder, budget)
    groups = batcher.groups
    expected = [(groups[row][0], [int(d) for d in groups[row][1]]) for row in rows]
    groups_read, tokens = [], 0
    for block in batcher.blocks(rows):
        pairs = read_pairs(block)
        assert len(pairs) == block.pairs
        for number in range(block.queries):
            docs = [pairs[place] for place in sorted(pairs) if place[0] == number]
            groups_read.append((docs[0][0], [doc for _, doc in docs]))
            assert {query for query, _ in docs} == {docs[0][0]}
        assert sorted(pairs) == [tuple(p) for p in np.argwhere(_real(block, groups, groups_read))]
        real = sum(int(inputs["attention_mask"].sum()) for _, inputs in block.batches)
        assert block.tokens == real
        assert block.tokens <= budget or block.queries == 1
        for positions, inputs in block.batches:
            assert inputs["input_ids"].size <= max(budget // 4, 1) or len(positions) == 1
        tokens += block.tokens
    assert groups_read == expected
    assert tokens == sum(block.tokens for block in batcher_of(folder, 1 << 20).blocks(rows))


def _real(block: Block, groups: GroupReader, groups_read: list) -> np.ndarray:
    """Places of the score matrix that hold a document: the last groups found are the block's."""
    sizes = [len(docs) for _, docs in groups_read[-block.queries :]]
    assert block.targets_QD.shape == block.mask_QD.shape == (len(sizes), max(sizes))
    return np.arange(max(sizes)) < np.array(sizes)[:, None]


def test_a_block_takes_as_many_groups_as_fit(folder):
    for budget in (100, 150, 250):
        sizes = [b.tokens for b in batcher_of(folder, 1).blocks(list(range(12)))]  # one group each
        assert len(sizes) == 12
        queries = [block.queries for block in batcher_of(folder, budget).blocks(list(range(12)))]
        at = 0
        for count in queries[:-1]:
            assert sum(sizes[at : at + count + 1]) > budget
            at += count
        assert sum(queries) == 12


def test_no_rows_no_blocks(folder):
    assert list(batcher_of(folder, 100).blocks([])) == []


def test_pairs_are_cut_like_the_truncation_says(folder):
    whole = next(batcher_of(folder, 1 << 20, max_length=64).blocks([0, 1, 2]))
    cut = next(batcher_of(folder, 1 << 20, max_length=8).blocks([0, 1, 2]))
    assert cut.pairs == whole.pairs and cut.tokens < whole.tokens
    assert max(inputs["input_ids"].shape[1] for _, inputs in cut.batches) == 8


@pytest.mark.parametrize("cut", [LongestFirst(max_length=14), Budgets(query=2, doc=9)])
@pytest.mark.parametrize("budget", [60, 200, 1 << 20])
def test_one_passage_per_pair_is_batched_as_pairs_are(folder, cut, budget):
    """A plain recomputation: cut, pad, sort by length, fill; the bytes must be the same."""
    batcher = dataclasses.replace(batcher_of(folder, budget), truncation=cut)
    at = 0
    for block in batcher.blocks(list(range(12))):
        assert block.passages == block.pairs == len(np.unique(block.cells_P[0]))
        pairs, place = [], []
        for number in range(block.queries):
            query, docs, *_ = batcher.groups[at + number]
            for column, doc in enumerate(docs):
                a, b = batcher.query_tokens[query], batcher.doc_tokens[int(doc)]
                q, d = cut.cut(len(a), len(b), 3)
                pairs.append((a[:q], b[:d]))
                place.append((number, column))
        at += block.queries
        lengths = [len(q) + len(d) + 3 for q, d in pairs]
        assert block.tokens == sum(lengths)
        assert list(zip(*(a.tolist() for a in block.cells_T), strict=True)) == place
        expected = list(length_batches(lengths, budget // 4))
        assert len(block.batches) == len(expected)
        for (rows, inputs), wanted in zip(block.batches, expected, strict=True):
            assert rows.tolist() == wanted.tolist()
            padded = TEMPLATE.pad([pairs[i] for i in wanted])
            assert inputs.keys() == padded.keys()
            for name, array in padded.items():
                assert inputs[name].dtype == array.dtype
                assert inputs[name].tobytes() == array.tobytes()
    assert at == 12


# --- targets -------------------------------------------------------------------------------------

RELEVANCE = np.array([3, 1, 0, -1])
TEACHER = np.array([2.0, np.nan, 1.0, np.inf])


@pytest.mark.parametrize(
    ("targets", "values", "usable"),
    [
        (Targets("labels", "score", 1), [1, 1, 0, 0], [True, True, True, True]),
        (Targets("labels", "score", 2), [1, 0, 0, 0], [True, False, True, True]),
        (Targets("labels", "rank", 4), [0, 0, 0, 0], [False, False, True, True]),
        (Targets("labels", "score", 2, graded=True), [3, 0, 0, 0], [True, False, True, True]),
        (Targets("labels", "score", 1, graded=True), [3, 1, 0, 0], [True, True, True, True]),
        (Targets("teacher", "score", 1), TEACHER, [True, False, True, False]),
        (Targets("teacher", "rank", 1), -TEACHER, [True, False, True, False]),
    ],
)
def test_targets(targets, values, usable):
    fitted, mask = targets.of(RELEVANCE, TEACHER)
    np.testing.assert_array_equal(fitted, values)
    assert fitted.dtype == np.float64 and mask.tolist() == usable


def test_a_blocks_targets_masks_and_labels(folder):
    """Group 2 has 4 documents, group 0 has 2; relevance 3, 1, 0, -1; teacher 5, 4, NaN, 2."""
    labels = next(batcher_of(folder, 1 << 20, Targets("labels", "score", 2)).blocks([2, 0]))
    assert labels.targets_QD.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    assert labels.mask_QD.tolist() == [[True, False, True, True], [True, False, False, False]]
    neither = np.nan
    np.testing.assert_array_equal(
        labels.labels_QD, [[3, neither, 0, 0], [3, neither, neither, neither]]
    )
    ranks = next(batcher_of(folder, 1 << 20, Targets("teacher", "rank", 1)).blocks([2, 0]))
    np.testing.assert_array_equal(ranks.targets_QD, [[-5, -4, np.nan, -2], [-5, -4, 0, 0]])
    assert ranks.mask_QD.tolist() == [[True, True, False, True], [True, True, False, False]]
    np.testing.assert_array_equal(ranks.labels_QD, [[3, 1, 0, 0], [3, 1, np.nan, np.nan]])
