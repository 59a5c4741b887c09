"""Records on disk: what a process wrote down outlives it, in order, once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from raypipe.tracking.spool import Spool, left_behind

TARGET = {"uri": "http://there", "experiment": "x", "artifact_root": ""}


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool.create(TARGET, tmp_path)


def verbs(spool: Spool) -> list[str]:
    return [record.verb for record in spool.unsent()]


def test_records_come_back_in_order(spool):
    for number in range(5):
        spool.append("metrics", "run", {"points": number})
    found = list(spool.unsent())
    assert [record.content["points"] for record in found] == [0, 1, 2, 3, 4]
    assert [record.number for record in found] == [0, 1, 2, 3, 4]
    spool.took(found[0])
    spool.took(found[1], "server-id")
    assert [record.number for record in spool.unsent()] == [2, 3, 4]
    assert (spool.waiting, spool.runs) == (3, {"run": "server-id"})


def test_another_process_goes_on_where_this_one_stopped(spool):
    for number in range(4):
        spool.append("metrics", "run", {"points": number})
    spool.took(next(spool.unsent()), "id")
    again = Spool(spool.folder)
    assert (again.sent, again.written, again.runs) == (1, 4, {"run": "id"})
    assert [r.content["points"] for r in again.unsent()] == [1, 2, 3]
    assert again.target == TARGET


def test_files_are_kept_until_they_are_sent(spool, tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    spool.append("artifacts", "run", {}, {"checkpoint": folder, "renamed.txt": tmp_path / "b.txt"})
    (tmp_path / "b.txt").unlink()
    (folder / "sub" / "a.txt").unlink()
    (record,) = spool.unsent()
    assert [path.name for path in record.files] == ["checkpoint", "renamed.txt"]
    assert (record.files[0] / "sub" / "a.txt").read_text() == "a"
    assert record.files[1].read_text() == "b"
    spool.took(record)
    assert not record.files[1].exists()


def test_half_a_line_is_no_record(spool):
    spool.append("start", "run", {"a": 1})
    with (spool.folder / "records.jsonl").open("ab") as out:
        out.write(b'{"verb": "metr')
    again = Spool(spool.folder)
    assert verbs(again) == ["start"] and again.written == 1
    again.append("finish", "run", {})
    assert verbs(Spool(spool.folder)) == ["start", "finish"]


def test_what_a_killed_process_wrote_is_there(tmp_path):
    code = f"""
import os
from pathlib import Path
from raypipe.tracking.spool import Spool
spool = Spool.create({TARGET!r}, Path({str(tmp_path)!r}))
spool.append("start", "job", {{}})
spool.append("start", "trial", {{}})
spool.append("start", "other", {{}})
spool.append("finish", "other", {{}})
assert Spool(spool.folder).hold() is False  # it is being written
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ})
    assert done.returncode == -9
    (left,) = left_behind(tmp_path)
    assert verbs(left) == ["start", "start", "start", "finish"]
    assert left.unfinished() == ["trial", "job"]  # children end before their parents
    assert left_behind(tmp_path) == []  # held by this process now
    left.close()
    assert [one.folder for one in left_behind(tmp_path)] == [left.folder]


def test_a_living_job_is_left_alone(spool, tmp_path):
    assert left_behind(tmp_path) == []


def test_an_empty_spool_disappears(spool):
    spool.append("start", "run", {})
    spool.close()
    assert spool.folder.exists()
    again = Spool(spool.folder)
    again.took(next(again.unsent()), "id")
    again.close()
    assert not spool.folder.exists()


def test_the_record_is_plain_json(spool):
    spool.append("tags", "run", {"tags": {"a": "é"}})
    line = Path(spool.folder / "records.jsonl").read_text()
    assert json.loads(line) == {"verb": "tags", "run": "run", "content": {"tags": {"a": "é"}}}


def test_what_is_unfinished_below_a_run(spool):
    for run, parent in [("job", None), ("a", "job"), ("a1", "a"), ("b", "job"), ("other", None)]:
        spool.append("start", run, {"parent": parent})
    spool.append("finish", "b", {})
    assert spool.unfinished("job") == ["a1", "a"]
    assert spool.unfinished("a") == ["a1"] and spool.unfinished("b") == []
    assert spool.unfinished() == ["other", "a1", "a", "job"]


def test_others_on_this_machine_do_not_read_it(spool):
    assert spool.folder.stat().st_mode & 0o777 == 0o700
