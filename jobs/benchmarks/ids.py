"""Ids looked up in a collection of that many: by raypipe's sorted order, and by a hash table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

IDS = """
import json, sys, time
from pathlib import Path
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from raypipe.tables.ids import open_ids

def memory(file, *names):
    lines = [line.split() for line in Path(f"/proc/self/{file}").read_text().splitlines()]
    return sum(int(words[1]) for words in lines if words[0].rstrip(":") in names) / 1024

def hashed(path):
    reader = pa.ipc.open_file(pa.memory_map(path))
    batches = map(reader.get_batch, range(reader.num_record_batches))
    ids = pa.chunked_array([batch.column(0) for batch in batches])
    return lambda asked: pc.fill_null(pc.index_in(asked, value_set=ids), -1).to_numpy()

def ordered(path):
    return open_ids(path).rows_of

def measured(work):
    started = time.process_time()
    done = work()
    return time.process_time() - started, done

numbers = np.random.default_rng(0).integers(0, 2 * COUNT, 1_000_000)
asked = pa.array([PATTERN.format(number) for number in numbers])
pa.default_memory_pool().release_unused()
Path("/proc/self/clear_refs").write_text("5")  # the highest memory counts from here
shared = ("smaps_rollup", "Pss")
private = ("smaps_rollup", "Private_Clean", "Private_Dirty")
before = [memory(*kind) for kind in (("status", "VmRSS"), shared, private)]
out = {}
out["open"], rows_of = measured(lambda: WAY(PATH))
out["none"], _ = measured(lambda: rows_of(asked[:0]))
out["1,000"], _ = measured(lambda: rows_of(asked[:1000]))
out["1 M"], rows = measured(lambda: rows_of(asked))
after = [memory(*kind) for kind in (("status", "VmHWM"), shared, private)]
assert (rows == np.where(numbers < COUNT, numbers, -1)).all()
out |= dict(zip(("peak", "pss", "private"), np.subtract(after, before), strict=True))
print(json.dumps(out), flush=True)
sys.stdin.read()
"""
"""What one process does: it opens the ids, looks some up, says what that took, and waits."""


def look_ups(count: int) -> None:
    """CPU time and memory of one process that looks ids up, half of which are there.

    The process that makes the order stays while the next one uses it, so that PSS is of two.

    Args:
        count: ids of the collection.
    """
    columns = ("open", "none", "1,000", "1 M", "peak", "pss", "private")
    print(f"| {count:,} ids | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for pattern in ("{}", "doc_en_{:06d}"):
        with tempfile.TemporaryDirectory() as home:
            path = f"{home}/docs.arrow"
            _write_ids(path, count, pattern)
            given = f"COUNT, PATTERN, PATH = {count}, {pattern!r}, {path!r}\n"
            code = {way: given + IDS.replace("WAY", way) for way in ("hashed", "ordered")}
            for name, processes in {
                "hash table": [code["hashed"]],
                "sorted order, made": [code["ordered"]],
                "sorted order, there": [code["ordered"]] * 2,
            }.items():
                took = _last_of(processes, home)
                numbers = [f"{took[c]:.4f} s" for c in columns[:4]]
                numbers += [f"{took[c]:.0f} MB" for c in columns[4:]]
                sample = pattern.format(123)
                print(f"| {sample}: {name} | {' | '.join(numbers)} |", flush=True)


def _write_ids(path: str, count: int, pattern: str, batch_rows: int = 4096) -> None:
    """A collection without texts, as docs.arrow has it."""
    import pyarrow as pa

    from raypipe.records import DOCS

    with pa.ipc.new_file(path, DOCS) as writer:
        for start in range(0, count, batch_rows):
            ids = [pattern.format(n) for n in range(start, min(start + batch_rows, count))]
            writer.write_batch(pa.record_batch([ids, ["x"] * len(ids)], DOCS))


def _last_of(code: list[str], home: str) -> dict[str, float]:
    """What the last of some processes says; they start one after the other and end together."""
    env, pipe = os.environ | {"RAYPIPE_HOME": home}, subprocess.PIPE
    processes, line = [], ""
    for one in code:
        command = [sys.executable, "-c", one]
        processes.append(subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True))
        stdout = processes[-1].stdout
        assert stdout is not None
        line = stdout.readline()
    for process in processes:
        process.communicate("")
    took: dict[str, float] = json.loads(line)
    return took
