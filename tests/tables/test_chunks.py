"""Chunks: fixed files, counters inside them, and what a later attempt takes over."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from buckets import bucket_store

from raypipe.config import ConfigError
from raypipe.resources import Context, RayOnDemand, Resources
from raypipe.storage.artifacts import Attempt, Step, Store
from raypipe.storage.builder import Builder
from raypipe.storage.files import file_checksum
from raypipe.tables import chunks
from raypipe.tables.chunks import Chunk, Counts, Work, run_chunks, run_chunks_here, run_once

CONTEXT = Context(Resources(actors=1), "fp32", progress_bars=False)


def squares(log: Path, fail_at: int | None = None) -> Work:
    """Square numbers; every chunk leaves a line in the log, chunk `fail_at` fails."""

    def work(rows: range) -> tuple[pa.Table, Counts]:
        if rows.start == fail_at:
            raise KeyboardInterrupt
        with log.open("a") as out:
            out.write(f"{rows.start}\n")
        values = [i * i for i in rows]
        return pa.table({"value": values}), {"odd": sum(v % 2 for v in values)}

    return work


@dataclass(frozen=True)
class FromFile(Step):
    """Reads a file of the user's for every chunk, as an LLM's token counter does."""

    file: Path
    log: Path
    edit_at: int | None = None

    kind: ClassVar[str] = "squares"
    name: ClassVar[str] = "file"  # type: ignore[misc]

    def spec(self) -> Mapping[str, Any]:
        return {"file": file_checksum(self.file)}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        inner = squares(self.log)

        def work(rows: range) -> tuple[pa.Table, Counts]:
            if rows.start == self.edit_at:
                self.file.write_text("edited")
            return inner(rows)

        return run_chunks_here(work, 10, 4, attempt, context)


def test_a_chunk_that_read_an_edited_file_is_not_taken_over(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    store, file, log = Store(str(tmp_path / "storage")), tmp_path / "file", tmp_path / "log"
    file.write_text("as planned")
    with pytest.raises(ConfigError, match=f"{file}: expected the content"):
        Builder(store, CONTEXT).get(FromFile(file, log, edit_at=4))
    file.write_text("as planned")
    made = Builder(store, CONTEXT).get(FromFile(file, log))
    assert made.counts["chunks_taken_over"] == 1
    assert log.read_text().split() == ["0", "4", "4", "8"]


@dataclass(frozen=True)
class Squares(Step):
    log: str
    fail_at: int | None = None
    chunk: int = 4
    seed: int = 0
    """Of the input, which is not in the digest of this step."""

    kind: ClassVar[str] = "squares"

    @property
    def name(self) -> str:
        return "squares"

    def needs(self) -> Mapping[str, Step]:
        return {"input": Input(self.seed)}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        work = squares(Path(self.log), self.fail_at)
        return run_chunks_here(work, 10, self.chunk, attempt, context)


@dataclass(frozen=True)
class Input(Step):
    seed: int
    kind: ClassVar[str] = "inputs"

    @property
    def name(self) -> str:
        return "input"

    def spec(self) -> Mapping[str, Any]:
        return {"seed": self.seed}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        return {}


@pytest.fixture
def log(tmp_path) -> Path:
    return tmp_path / "log"


def interrupted(store: Store, log: Path, fail_at: int, **fields: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        Builder(store, CONTEXT).get(Squares(str(log), fail_at, **fields))
    assert store.find(Squares(str(log))) is None


def test_an_interrupted_job_continues_and_its_bytes_are_the_same(tmp_path, log):
    whole = Builder(Store(str(tmp_path / "a")), CONTEXT).get(Squares(str(log)))
    assert whole.counts == {"rows": 10, "odd": 5}
    store = Store(str(tmp_path / "b"))
    log.unlink()
    interrupted(store, log, fail_at=8)
    again = Builder(store, CONTEXT).get(Squares(str(log)))
    assert log.read_text().split() == ["0", "4", "8"]  # nothing twice
    # the last chunk was in hand when the job ended
    interruption = {"chunks_taken_over": 2, "chunks_begun_again": 1}
    assert again.counts == {"rows": 10, "odd": 5, **interruption}
    assert again.files == whole.files == [f"part-0000{i}.parquet" for i in range(3)]
    for name in whole.files:
        assert (again.local() / name).read_bytes() == (whole.local() / name).read_bytes()
    assert again.table()["value"].to_pylist() == [i * i for i in range(10)]
    attempts = [p for p in (again.local().parent).iterdir() if p.is_dir()]
    assert attempts == [again.local()]  # the unfinished one is gone


def test_chunks_are_taken_over_on_object_stores_too(tmp_path, log, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    store = bucket_store(monkeypatch, tmp_path / "remote" / "bucket")
    assert not store.is_local
    interrupted(store, log, fail_at=8)
    again = Builder(store, CONTEXT).get(Squares(str(log)))
    assert log.read_text().split() == ["0", "4", "8"]
    assert again.counts["chunks_taken_over"] == 2 and again.counts["chunks_begun_again"] == 1
    assert again.table()["value"].to_pylist() == [i * i for i in range(10)]
    assert len(list((tmp_path / "remote").rglob("squares-*/attempt-*"))) == 1


@pytest.mark.parametrize("damage", ["values", "cut", "of raypipe 0.1"])
def test_a_damaged_part_is_made_again(tmp_path, log, damage):
    """A disk that lost power may hold zeros where values were."""
    store = Store(str(tmp_path))
    interrupted(store, log, fail_at=8)
    (part,) = tmp_path.rglob("part-00001.parquet")
    table = pq.read_table(part)
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-20])
    elif damage == "values":
        pq.write_table(table.set_column(0, "value", pa.array([0, 0, 0, 0])), part)
    else:
        note = json.loads(table.schema.metadata[b"raypipe.chunk"])
        del note["values"]
        pq.write_table(table.replace_schema_metadata({"raypipe.chunk": json.dumps(note)}), part)
    again = Builder(store, CONTEXT).get(Squares(str(log)))
    assert log.read_text().split() == ["0", "4", "4", "8"]
    assert again.counts["chunks_taken_over"] == 1 and again.counts["odd"] == 5
    assert again.table()["value"].to_pylist() == [i * i for i in range(10)]


def test_an_attempt_that_lost_a_part_is_not_committed(tmp_path, log):
    """The manifest would name the other parts, and nobody would miss the rows."""

    class Losing(Squares):
        def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
            counts = super().run(attempt, context)
            Path(attempt.base, "part-00001.parquet").unlink()
            return counts

    store = Store(str(tmp_path))
    with pytest.raises(OSError, match="lost files before it was committed"):
        Builder(store, CONTEXT).get(Losing(str(log)))
    assert store.find(Losing(str(log))) is None


def test_twice_interrupted(tmp_path, log):
    store = Store(str(tmp_path))
    interrupted(store, log, fail_at=4)
    interrupted(store, log, fail_at=8)
    again = Builder(store, CONTEXT).get(Squares(str(log)))
    assert log.read_text().split() == ["0", "4", "8"]
    assert again.counts["odd"] == 5 and again.counts["chunks_taken_over"] == 2
    assert again.counts["chunks_begun_again"] == 2


def test_chunks_of_another_size_are_not_taken_over(tmp_path, log):
    store = Store(str(tmp_path))
    interrupted(store, log, fail_at=4)
    again = Builder(store, CONTEXT).get(Squares(str(log), chunk=5))
    assert again.counts == {"rows": 10, "odd": 5}
    assert again.table().num_rows == 10


def test_chunks_of_another_input_are_not_taken_over(tmp_path, log):
    store = Store(str(tmp_path))
    interrupted(store, log, fail_at=4)
    again = Builder(store, CONTEXT).get(Squares(str(log), seed=1))
    assert again.counts == {"rows": 10, "odd": 5}
    assert log.read_text().split() == ["0", "0", "4", "8"]


@pytest.mark.parametrize("keep", [0, 4, 100])
def test_half_a_file_is_not_taken_over(tmp_path, log, keep):
    store = Store(str(tmp_path))
    interrupted(store, log, fail_at=4)
    (part,) = tmp_path.rglob("part-00000.parquet")
    part.write_bytes(part.read_bytes()[:keep])
    again = Builder(store, CONTEXT).get(Squares(str(log)))
    assert log.read_text().split() == ["0", "0", "4", "8"]
    assert again.table()["value"].to_pylist() == [i * i for i in range(10)]


def test_what_a_killed_worker_left_unfinished_is_not_committed(tmp_path, log):
    store = Store(str(tmp_path))
    interrupted(store, log, fail_at=4)
    (part,) = tmp_path.rglob("part-00000.parquet")
    (part.parent / ".unfinished-1234-part-00001.parquet").write_bytes(b"PAR1")
    again = Builder(store, CONTEXT).get(Squares(str(log)))
    assert again.files == [f"part-0000{i}.parquet" for i in range(3)]
    assert not list(tmp_path.rglob(".unfinished*"))


def test_a_file_that_fails_while_it_is_written_does_not_appear(tmp_path):
    with Store(str(tmp_path)).attempt(Input(0), {}) as attempt:
        with pytest.raises(KeyboardInterrupt), attempt.open("part-00000.parquet") as sink:
            sink.write(b"PAR1")
            raise KeyboardInterrupt
        assert [path.name for path in Path(attempt.base).iterdir() if path.name[0] != "."] == []
        attempt.commit({})


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_the_counters_are_in_the_file(tmp_path, log, suffix):
    with Store(str(tmp_path)).attempt(Input(0), {}) as attempt:
        chunk = Chunk(3, 4, 8, suffix)
        assert chunk.write(squares(log), attempt) == {"odd": 2}
        path = Path(attempt.base) / f"part-00003.{suffix}"
        with path.open("rb") as stream:
            assert chunk.counts_in(stream) == {"odd": 2}
        with path.open("rb") as stream:
            assert Chunk(3, 4, 9, suffix).counts_in(stream) is None
        if suffix == "parquet":
            pq.write_table(pa.table({"value": [1]}), path)  # a file of somebody else
            with path.open("rb") as stream:
                assert chunk.counts_in(stream) is None
        attempt.commit({})


@dataclass(frozen=True)
class SquaresJob:
    log: str

    def build(self) -> Work:
        return squares(Path(self.log))


@dataclass(frozen=True)
class RaySquares(Squares):
    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        return run_chunks(SquaresJob(self.log), 10, self.chunk, attempt, context, model=False)


@pytest.mark.ray
@pytest.mark.parametrize(("fail_at", "left"), [(4, ["4", "8"]), (8, ["8"])])
def test_an_actor_pool_and_a_task_continue_too(cluster, tmp_path, log, fail_at, left):
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
    whole = Builder(Store(str(tmp_path / "a")), CONTEXT).get(RaySquares(str(log)))
    store = Store(str(tmp_path / "b"))
    step = RaySquares(str(log))
    with pytest.raises(KeyboardInterrupt), store.attempt(step, {}) as attempt:
        # the files of the same step, left by a job that was interrupted
        run_chunks_here(squares(log, fail_at), 10, 4, attempt, CONTEXT)
    log.unlink()
    with store.attempt(step, {}) as attempt:
        again = attempt.commit(step.run(attempt, CONTEXT))
    assert again.counts["chunks_begun_again"] == 1
    assert not any(name.startswith(".") for name in again.files)
    assert sorted(log.read_text().split()) == left
    for name in whole.files:
        assert (again.local() / name).read_bytes() == (whole.local() / name).read_bytes()


def before_ray(start: Callable[[], None]) -> Context:
    return replace(CONTEXT, late=RayOnDemand(start))


def no_ray() -> None:
    pytest.fail("Ray was started")


def test_before_ray_runs_chunks_are_made_here(tmp_path, log):
    plain = Builder(Store(str(tmp_path / "a")), CONTEXT).get(Squares(str(log)))
    log.unlink()
    here = Builder(Store(str(tmp_path / "b")), before_ray(no_ray)).get(RaySquares(str(log)))
    assert log.read_text().split() == ["0", "4", "8"]
    assert here.counts == plain.counts and here.files == plain.files
    for name in here.files:
        assert (here.local() / name).read_bytes() == (plain.local() / name).read_bytes()


def test_what_an_interrupted_job_made_is_taken_over_before_ray_runs(tmp_path, log):
    interrupted(Store(str(tmp_path)), log, fail_at=8)
    store, step = Store(str(tmp_path)), Squares(str(log))
    context = before_ray(no_ray)
    with store.attempt(step, {"input": Builder(store, CONTEXT).get(Input(0))}) as attempt:
        job = SquaresJob(str(log))
        again = attempt.commit(run_chunks(job, 10, 4, attempt, context, model=False))
    assert log.read_text().split() == ["0", "4", "8"]
    assert again.counts["chunks_taken_over"] == 2


def on_ray(monkeypatch, log: Path) -> tuple[Context, list[Any]]:
    """A context without Ray yet, and what happens: "start", and the chunks that Ray would make."""
    happened: list[Any] = []

    def stream(job: Any, todo: list[Chunk], attempt: Attempt, *_: Any) -> list[Counts]:
        happened.append([chunk.start for chunk in todo])
        return [chunk.write(job.build(), attempt) for chunk in todo]

    monkeypatch.setattr(chunks, "_stream", stream)
    return before_ray(lambda: happened.append("start")), happened


def test_chunks_that_would_take_long_here_go_to_ray(tmp_path, log, monkeypatch):
    context, happened = on_ray(monkeypatch, log)
    monkeypatch.setattr(chunks, "LONG_S", -1.0)
    made = Builder(Store(str(tmp_path)), context).get(RaySquares(str(log)))
    assert happened == ["start", [4, 8]]  # the first one told how long they take
    assert made.counts == {"rows": 10, "odd": 5}


def test_one_chunk_that_is_left_starts_no_ray(tmp_path, log, monkeypatch):
    monkeypatch.setattr(chunks, "LONG_S", -1.0)
    made = Builder(Store(str(tmp_path)), before_ray(no_ray)).get(RaySquares(str(log), chunk=5))
    assert made.counts == {"rows": 10, "odd": 5}


def test_chunks_of_a_model_are_made_on_ray(tmp_path, log, monkeypatch):
    context, happened = on_ray(monkeypatch, log)
    with Store(str(tmp_path)).attempt(Input(0), {}) as attempt:
        counts = run_chunks(SquaresJob(str(log)), 10, 4, attempt, context, model=True)
        attempt.commit(counts)
    assert happened == ["start", [0, 4, 8]] and counts["odd"] == 5


def test_work_of_one_call_is_done_here_before_ray_runs():
    assert run_once(divmod, 7, 2, context=before_ray(no_ray)) == (3, 1)
