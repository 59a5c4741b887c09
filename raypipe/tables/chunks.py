"""The runner of every Ray Data job: input rows in chunks of a planned size, one file per chunk.

No model batch crosses a chunk, and files have fixed names. So the bytes depend neither on the
number of actors, nor on the order in which they finish, nor on interruptions: a chunk's file
appears whole, holds its own counters, and the next attempt takes it over. Nor do they depend on
the process that makes a chunk: a job that began without Ray makes chunks itself, until what is
left takes longer than Ray's start.
"""

from __future__ import annotations

import functools
import json
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.config import digest
from raypipe.progress import counting
from raypipe.resources import CancelledWorkError, Context
from raypipe.storage.artifacts import Attempt
from raypipe.storage.outside import check_read
from raypipe.storage.parts import part_name
from raypipe.tables.fingerprint import fingerprint

Counts = dict[str, int]
Work = Callable[[range], tuple[pa.Table, Counts]]
"""Given a range of input rows, a table of results and counters of drops."""
Keep = Callable[[Counts], bool]
LONG_S = 20.0
"""Processor seconds for which Ray is started: with an actor pool that costs ten, and two processes
take half of the rest. On a busy machine chunks take longer by the clock, and so would Ray."""
TAKEN = "_taken_over"
"""The end of the names of counters that tell what an earlier artifact gave. They stand in the
manifest alone: a chunk has the same bytes however much of it was known before."""
_NOTE = b"raypipe.chunk"
_BEGUN = ".begun-"


class ChunkJob(Protocol):
    """A picklable description of the work, from which every actor builds its own."""

    def build(self) -> Work:
        """Load the model or the index; each actor calls it once."""
        ...


@dataclass(frozen=True)
class Chunk:
    """Consecutive input rows whose results are one file."""

    number: int
    start: int
    stop: int
    suffix: str

    @property
    def file(self) -> str:
        return part_name(self.number, self.suffix)

    def write(self, work: Work, attempt: Attempt) -> Counts:
        """Do the work and write the file with its counters inside.

        A note says first that the work has begun: after a crash it tells how much was done twice.
        """
        with attempt.open(f"{_BEGUN}{self.start}-{self.stop}-{uuid.uuid4().hex[:8]}"):
            pass
        table, counts = work(range(self.start, self.stop))
        check_read(attempt.outside)
        noted = {name: count for name, count in counts.items() if not name.endswith(TAKEN)}
        note = {"start": self.start, "stop": self.stop, "counts": noted}
        note["values"] = _hash(table, note)
        table = table.replace_schema_metadata({_NOTE: json.dumps(note, sort_keys=True)})
        with attempt.open(self.file) as sink:
            if self.suffix == "arrow":  # one batch per file: memory-mapped without a copy
                table = table.combine_chunks()
                with pa.ipc.new_file(sink, table.schema) as writer:
                    writer.write_table(table)
            else:
                pq.write_table(table, sink)
        return counts

    def counts_in(self, stream: BinaryIO) -> Counts | None:
        """The counters in a finished file of this chunk; None if the file is anything else.

        A file with damaged values, or one of raypipe 0.1, which holds no hash of them, is made
        again.
        """
        try:
            if self.suffix == "arrow":
                table = pa.ipc.open_file(stream).read_all()
            else:
                table = pq.read_table(stream)
            table.validate(full=True)
            note = json.loads(table.schema.metadata[_NOTE])
            counts: Counts = note["counts"]
            written = note.pop("values")
            sound = written == _hash(table, note)
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError):
            return None
        rows = (note["start"], note["stop"])
        return counts if sound and rows == (self.start, self.stop) else None


def _hash(table: pa.Table, note: Mapping[str, Any]) -> str:
    """A hash of a chunk's values, and of what its note says of them."""
    return digest([fingerprint(table), dict(note)], 32)


class _ChunkActor:
    def __init__(self, job: ChunkJob, attempt: Attempt) -> None:
        self._work = job.build()
        self._attempt = attempt

    def __call__(self, batch: pa.Table) -> pa.Table:
        (row,) = batch.to_pylist()
        counts = Chunk(**row).write(self._work, self._attempt)
        return pa.table({"number": [row["number"]], "counts": [json.dumps(counts)]})


@dataclass(frozen=True)
class _Chunks:
    """Chunks as the work of a training slot: each of its workers takes its share."""

    job: ChunkJob
    attempt: Attempt
    todo: Sequence[Chunk]

    def run(self, rank: int, world: int, tell: Callable[[dict[str, Any]], bool]) -> Counts:
        total: Counter[str] = Counter()
        if mine := self.todo[rank::world]:
            work = self.job.build()
            for chunk in mine:
                total.update(chunk.write(work, self.attempt))
                if not tell({}):
                    raise CancelledWorkError
        return dict(total)


def _one_chunk(job: ChunkJob, attempt: Attempt, chunk: Chunk) -> Counts:
    return chunk.write(job.build(), attempt)


def run_chunks(
    job: ChunkJob,
    rows: int,
    chunk_rows: int,
    attempt: Attempt,
    context: Context,
    *,
    model: bool,
    suffix: str = "parquet",
    keep: Keep = lambda counts: True,
) -> Counts:
    """Run `job` over `rows` input rows in chunks, on an actor pool, or in the trial's slot; before
    Ray runs, in this process as far as that is the shorter way.

    Args:
        chunk_rows: input rows per chunk and file.
        model: whether the actors run a model, and so want a GPU where there is one.
        suffix: "parquet", or "arrow" for files that are memory-mapped later.
        keep: given the counters of a chunk of an earlier attempt, whether it is taken over.

    Returns:
        The sums of all chunks' counters, and "rows". After interruptions also "chunks_taken_over"
        from earlier attempts, and "chunks_begun_again": starts of work on a chunk beyond its first.
    """
    todo, total = _plan(rows, chunk_rows, suffix, attempt, keep)
    slots = context.slots
    if todo and slots is not None and slots.shared:
        resources = context.resources.for_trials(1)
        for counts in slots.run(_Chunks(job, attempt, todo), resources, attempt.base):
            total.update(counts)
        return _counted(total, attempt)
    if todo and slots is not None:
        slots.rest()
    if todo and not context.has_ray:
        if not model:
            todo = _begin_here(job, todo, attempt, total)
        if todo:
            context.need_ray()
    if len(todo) == 1:  # a task finds a warm process, an actor pool starts one: 5 s on 2 cores
        import ray

        _, ask = context.resources.pool(1, model=model)
        task = ray.remote(scheduling_strategy="SPREAD", **ask)(_one_chunk)
        total.update(ray.get(task.remote(job, attempt, todo[0])))
    elif todo:
        for counts in _stream(job, todo, attempt, context, model):
            total.update(counts)
    return _counted(total, attempt)


def run_once(work: Callable[..., Any], *arguments: Any, context: Context) -> Any:
    """Call a picklable function without a model in a task of the cluster, or here before Ray runs.

    Args:
        arguments: the function's own.
    """
    if not context.has_ray:
        return work(*arguments)
    import ray

    task = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(work)
    return ray.get(task.remote(*arguments))


def _begin_here(
    job: ChunkJob, todo: list[Chunk], attempt: Attempt, total: Counter[str]
) -> list[Chunk]:
    """Make chunks in this process, and count in `total`; those that are left when Ray pays."""
    work, begun = job.build(), time.process_time()
    for number, chunk in enumerate(todo, start=1):
        total.update(chunk.write(work, attempt))
        left = len(todo) - number
        if left > 1 and left * (time.process_time() - begun) / number > LONG_S:
            return todo[number:]
    return []


def run_chunks_here(
    work: Work,
    rows: int,
    chunk_rows: int,
    attempt: Attempt,
    context: Context,
    *,
    keep: Keep = lambda counts: True,
) -> Counts:
    """As `run_chunks`, but one chunk after another in this process: for work that calls a service,
    or that is itself a Ray job."""
    from rich.progress import track

    todo, total = _plan(rows, chunk_rows, "parquet", attempt, keep)
    if context.slots is not None:
        context.slots.rest()
    for chunk in track(todo, attempt.step.name, disable=not context.progress_bars):
        total.update(chunk.write(work, attempt))
    return _counted(total, attempt)


def built_late(build: Callable[[], Work]) -> Work:
    """Work that the first chunk builds: a job whose chunks are all there calls no service."""
    built = functools.cache(build)
    return lambda chunk: built()(chunk)


def _counted(total: Counter[str], attempt: Attempt) -> Counts:
    begun = [name.rpartition("-")[0] for name in attempt.notes(_BEGUN)]
    if again := len(begun) - len(set(begun)):
        total["chunks_begun_again"] = again
    return dict(total)


def _plan(
    rows: int, chunk_rows: int, suffix: str, attempt: Attempt, keep: Keep
) -> tuple[list[Chunk], Counter[str]]:
    """The chunks that are still to be done, and the counters of the finished ones."""
    chunks = {
        chunk.file: chunk
        for number, start in enumerate(range(0, rows, chunk_rows))
        for chunk in [Chunk(number, start, min(start + chunk_rows, rows), suffix)]
    }
    total: Counter[str] = Counter({"rows": rows})

    def accept(name: str, stream: BinaryIO) -> bool:
        counts = chunks[name].counts_in(stream) if name in chunks else None
        if counts is None or not keep(counts):
            return False
        total.update(counts)
        return True

    taken = set(attempt.resume(accept))
    attempt.expected |= chunks.keys()
    if taken:
        total["chunks_taken_over"] = len(taken)
        print(
            f"{attempt.step.kind} {attempt.step.name}: {len(taken)} of {len(chunks)} chunks "
            "were there",
            flush=True,
        )
    return [chunk for name, chunk in chunks.items() if name not in taken], total


def quieten() -> None:
    """Make Ray Data print failures and nothing else: `counting` shows how far it is."""
    import ray

    data = ray.data.DataContext.get_current()
    data.enable_progress_bars = False
    data.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # "bars disabled"


def _stream(
    job: ChunkJob, todo: list[Chunk], attempt: Attempt, context: Context, model: bool
) -> list[dict[str, Any]]:
    """Run chunks on an actor pool of Ray Data; return their counters."""
    import ray

    quieten()
    compute, ask = context.resources.pool(len(todo), model=model)
    results = ray.data.from_items(
        [vars(chunk) for chunk in todo], override_num_blocks=len(todo)
    ).map_batches(
        _ChunkActor,
        fn_constructor_args=(job, attempt),
        batch_size=1,
        batch_format="pyarrow",
        compute=compute,
        **ask,
    )
    done = []
    with counting(attempt.step.kind, len(todo)) as move:
        for row in results.iter_rows():
            done.append(row)
            move(len(done))
    if len(done) != len(todo):
        raise RuntimeError(
            f"{attempt.step.path}: {len(done)} of {len(todo)} chunks came back; run the command "
            "again, finished chunks are taken over"
        )
    return [json.loads(row["counts"]) for row in done]
