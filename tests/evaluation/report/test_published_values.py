"""Values that papers printed stand beside the same data only."""

from __future__ import annotations

import pytest

from raypipe.evaluation.report.published import Published, published_for


def test_published_values_stand_beside_the_same_data_only():
    one = Published(
        dataset="vaswani", first_stage="BM25", source="A", values={"AP": {"BM25": 0.3, "x": 0.4}}
    )
    two = Published(dataset="vaswani", first_stage="BM25", source="B", values={"AP": {"y": 0.5}})
    assert published_for([one, two], "vaswani", None, "BM25") == (
        {"AP": {"BM25": 0.3, "x": 0.4, "y": 0.5}},
        ("A", "B"),
    )
    assert published_for([one], "vaswani", None, "SPLADE") == ({}, ())
    assert published_for([one], "cranfield", None, "BM25") == ({}, ())
    with pytest.raises(ValueError, match=r"expected a value in \[0, 1\], found 51\.2"):
        Published(dataset="a", first_stage="b", source="c", values={"AP": {"x": 51.2}})
