"""Bars of stages on a terminal: which lines move one, which stay."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from raypipe.commands.live_stages import LiveStages


@pytest.fixture
def live():
    stages = LiveStages(Console(file=io.StringIO(), force_terminal=True, width=100))
    yield stages
    stages.close()


def bars(live: LiveStages) -> dict[str, float]:
    """Label to step."""
    if live._progress is None:
        return {}
    return {task.description: task.completed for task in live._progress.tasks}


def shown(live: LiveStages) -> str:
    assert live._console is not None
    return live._console.file.getvalue()


def test_steps_move_the_bar_of_their_stage(live, capsys):
    live("a, x: step 2/40  loss 0.5  12 pairs/s")
    live("b, x: step 1/10  loss 0.7  9 pairs/s")
    live("a, x: step 4/40  loss 0.4  13 pairs/s  1 minute left")
    assert bars(live) == {"a, x": 4, "b, x": 1}
    assert live._progress is not None
    assert live._progress.tasks[0].fields["news"] == "loss 0.4  13 pairs/s  1 minute left"
    live.close()
    assert bars(live) == {} and capsys.readouterr().out == ""


def test_validations_alarms_and_last_steps_stay(live, capsys):
    live("a: step 2/4  validation nDCG@10 0.250  loss 0.5  12 pairs/s")
    live("a: step 3/4  loss 0.4  12 pairs/s")
    assert bars(live) == {"a": 3}
    live("b: the collection is large")
    assert bars(live) == {"a": 3}
    live("a: The loss did not fall.")
    assert bars(live) == {}
    live("a: step 4/4  loss 0.3  12 pairs/s")
    assert bars(live) == {}
    assert shown(live).count("b: the collection is large") == 1
    assert capsys.readouterr().out.splitlines() == [
        "a: step 2/4  validation nDCG@10 0.250  loss 0.5  12 pairs/s",
        "a: The loss did not fall.",
        "a: step 4/4  loss 0.3  12 pairs/s",
    ]


def test_names_are_no_markup(live):
    live("a [bold]: step 1/4  loss 0.4  [red]")
    live("b [/x] is an alarm")
    assert "b [/x] is an alarm" in shown(live)
    assert "a [bold] " in shown(live) and "[red]" in shown(live)
