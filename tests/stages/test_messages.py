"""The lines of a training worker: whose stage, how far, how long."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from raypipe.progress import OWN
from raypipe.stages import messages
from raypipe.stages.messages import reporter, speaker
from raypipe.stages.stage import label_of


def test_stages_of_one_name_are_told_apart_by_their_trials():
    assert label_of("lr=1e-5 / seed 2", "contrastive") == "lr=1e-5 / seed 2, contrastive"
    assert label_of("contrastive", "contrastive") == "contrastive"
    assert label_of("contrastive -> distil", "distil") == "contrastive -> distil, distil"


@pytest.fixture
def times(monkeypatch) -> Iterator[float]:
    monkeypatch.setattr(messages, "agree", lambda value: value is not False)
    return iter([100.0, 130.0, 190.0, 220.0])


def report(step: int, *rows: dict[str, float]) -> dict[str, Any]:
    return {"step": step, "total": 40, "rows": list(rows), "pairs_per_second": 123.4}


def test_a_report_says_step_speed_and_time_left(times, capsys):
    sent = []
    send = reporter("a, distil", 0, lambda news: not sent.append(news), lambda: next(times))
    start = {"step": 0, "val/nDCG@10": 0.125}
    send(report(10, start, {"step": 10, "loss": 0.5}, {"step": 10, "val/nDCG@10": 0.25}))
    send(report(20, {"step": 20, "loss": 0.25}))
    send(report(40))
    assert capsys.readouterr().out.splitlines() == [
        f"{OWN}a, distil: step 10/40  before training nDCG@10 0.125  validation nDCG@10 0.250"
        "  loss 0.5000  123 pairs/s",
        f"{OWN}a, distil: step 20/40  loss 0.2500  123 pairs/s  1 minute left",
        f"{OWN}a, distil: step 40/40  123 pairs/s",
    ]
    assert [news["step"] for news in sent] == [10, 20, 40]


def test_only_the_first_worker_speaks(times, capsys):
    reporter("a", 1, lambda news: True, lambda: next(times))(report(10))
    speaker("a", 1)("The loss is flat.")
    assert capsys.readouterr().out == ""
    speaker("a", 0)("The loss is flat.")
    assert capsys.readouterr().out == f"{OWN}a: The loss is flat.\n"
