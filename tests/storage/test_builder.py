"""Building: each step once, after what it reads."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from clocks import age, elsewhere
from number_steps import Number, Sum, read

from raypipe.storage.artifacts import Attempt, Store
from raypipe.storage.builder import Builder


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path / "storage"))


def test_every_step_is_made_once_and_found_by_other_builders(store):
    one, two = Number(1, "one"), Number(2, "two")
    inner = Sum((one, two))
    lines: list[str] = []
    builder = Builder(store, announce=lines.append)
    assert read(builder.get(Sum((inner, one, Number(1, "copy")))).local()) == 5
    assert lines == ["numbers one", "numbers two", "sums sum", "sums sum"]
    assert (one.log, two.log, inner.log) == (["one"], ["two"], ["sum"])
    assert len(builder.made) == 4
    later = Builder(store, announce=lines.append)
    assert read(later.get(Sum((inner, two))).local()) == 5
    assert len(later.made) == 1 and len(lines) == 5
    assert inner.log == ["sum"] and later.find(inner) == builder.find(inner)


def test_a_terminal_has_the_step_at_its_foot_and_a_file_has_a_line(store, monkeypatch):
    feet: list[str] = []

    @contextlib.contextmanager
    def shown(title: str, yes: bool, line: str) -> Any:
        feet.append(line)
        yield

    monkeypatch.setattr("raypipe.storage.builder.shown", shown)
    context, lines = SimpleNamespace(progress_bars=True), list[str]()
    builder = Builder(store, context, announce=lines.append)
    both = Sum((Number(1), Number(2, "two")))
    builder.get(Number(1))
    builder.plan([both, Number(2, "two")])
    monkeypatch.setattr("raypipe.storage.builder.watched", lambda: True)
    builder.get(both)
    builder.get(Number(3))
    monkeypatch.setattr(Number, "tells", True)  # as trainings do, whose bars stand there
    builder.get(Number(4, "four"))
    assert lines == ["numbers number", "numbers four"]
    expected = [
        "",
        "step 2 of 3: numbers two",
        "step 3 of 3: sums sum",
        "step 4: numbers number",
        "",
    ]
    assert feet == expected


def test_what_a_step_needs_is_made_and_handed_to_it(store):
    made = Builder(store).get(Sum((Number(1),), hint=Number(10)))
    assert read(made.local()) == 11
    assert set(made.manifest["inputs"]) == {"part0", "hint"}


def test_inputs_are_not_made_if_the_artifact_stands(store):
    part = Number(1)
    made = Builder(store).get(Sum((part,)))
    shutil.rmtree(Path(store.root) / "numbers")
    builder = Builder(store)
    assert builder.get(Sum((part,))) == made
    assert builder.made == set() and builder.find(part) is None


def test_alarms_are_said_once_whether_made_or_found(store):
    class Alarming(Number):
        def alarms(self, counts: Any) -> list[str]:
            return [f"counts {sorted(counts)}"]

    for _ in range(2):
        lines: list[str] = []
        builder = Builder(store, announce=lines.append)
        for step in (Alarming(1), Alarming(1), Alarming(1)):
            builder.get(step)
        assert len(builder.alarms) == 1 and lines.count(builder.alarms[0]) == 1
        assert builder.alarms[0].startswith("numbers ")
    more: list[str] = []
    beside = Builder(store, announce=more.append, told=set(builder.told))
    beside.get(Alarming(1))
    assert more == [] and beside.alarms == builder.alarms


def test_the_context_reaches_the_work(store):
    class Told(Number):
        def run(self, attempt: Attempt, context: Any) -> dict[str, int]:
            return {"context": context}

    assert Builder(store, context=41).get(Told(1)).counts == {"context": 41}


def test_downstream_manifests_hold_the_checksums_of_their_inputs(store):
    part, total = Number(1), Sum((Number(1),))
    builder = Builder(store)
    made = builder.get(total)
    recorded = made.manifest["inputs"]["part0"]
    assert recorded == {"path": part.path, "checksum": store.find(part).checksum}
    shutil.rmtree(Path(store.root) / "numbers")
    again = Builder(store).get(part)  # another attempt: another manifest
    assert again.digest == part.digest and again.checksum != recorded["checksum"]


# --- several jobs ---------------------------------------------------------------------------------


def test_a_builder_waits_for_a_living_writer_and_reads_its_artifact(store):
    """A job of another cluster shares no claims."""
    step, lines = Number(7), []
    made = {}
    with store.attempt(step, {}) as attempt:
        counts = step.run(attempt, None)
        builder = Builder(store, announce=lines.append)
        thread = threading.Thread(target=lambda: made.update(artifact=builder.get(step)))
        thread.start()
        while not lines:
            assert thread.is_alive()
        won = attempt.commit(counts)
    thread.join()
    assert made["artifact"] == won and builder.made == set()
    (line,) = lines
    waiting = rf"waiting for process {os.getpid()} on .*, which makes numbers number \(if no such"
    assert re.match(waiting, line) and attempt.base in line


def test_the_work_of_a_dead_writer_is_done_again(store):
    step = Number(7)
    with store.attempt(step, {}) as attempt:
        elsewhere(Path(attempt.base))
        age(Path(attempt.base), 1000)
        builder = Builder(store)
        made = builder.get(step)
        assert builder.made == {step.digest}
        assert attempt.commit(step.run(attempt, None)) == made  # it was only asleep
    assert [path.name for path in made.local().parent.glob("attempt-*")] == [made.local().name]


def test_a_lost_claim_is_in_the_manifest(store):
    class Losing:
        lost: ClassVar[list[str]] = [f"{store.root}/{Number(7).path}"]

        def __call__(self, key, stands):
            return contextlib.nullcontext()

    made = Builder(store, claim=Losing()).get(Number(7))
    assert made.manifest["used"]["claims_lost"] == 1
    assert "claims_lost" not in Builder(store, claim=Losing()).get(Number(8)).manifest["used"]


def test_claims_of_two_storages_are_two(tmp_path):
    keys = []

    def claim(key, stands):
        keys.append(key)
        return contextlib.nullcontext()

    for name in ("a", "b"):
        Builder(Store(str(tmp_path / name)), claim=claim).get(Number(7))
    assert keys == [f"{tmp_path}/a/{Number(7).path}", f"{tmp_path}/b/{Number(7).path}"]
