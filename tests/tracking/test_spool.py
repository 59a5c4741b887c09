"""Records on disk: what a process wrote down outlives it, in order, once."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from raypipe.tracking.orphans import left_behind, orphans
from raypipe.tracking.record import DAMAGED
from raypipe.tracking.spool import Spool

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
    (left,) = left_behind(root=tmp_path)
    assert verbs(left) == ["start", "start", "start", "finish"]
    assert left.unfinished() == ["trial", "job"]  # children end before their parents
    assert left_behind(root=tmp_path) == []  # held by this process now
    left.close()
    assert [one.folder for one in left_behind(root=tmp_path)] == [left.folder]


def test_a_living_job_is_left_alone(spool, tmp_path):
    assert left_behind(root=tmp_path) == []


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


# --- a full disk ---------------------------------------------------------------------------------


def contents(spool: Spool) -> list[tuple[object, list[str]]]:
    """Of every record, what it says and the names of its files."""
    return [(r.content["n"], [file.name for file in r.files]) for r in Spool(spool.folder).unsent()]


class Full:
    """A stream on a disk that is full after so many bytes; each write takes what still fits."""

    def __init__(self, stream, left: int) -> None:
        self.stream, self.left = stream, left

    def write(self, line: bytes) -> int:
        if self.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = line[: self.left]
        self.left -= len(part)
        return self.stream.write(part)

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


def test_a_disk_that_is_full_in_a_record_loses_that_record(spool, tmp_path):
    """However much of the line still fitted, and whoever reads it meanwhile."""
    (tmp_path / "a.txt").write_text("a")
    spool.append("tags", "run", {"n": 0})
    size = (spool.folder / "records.jsonl").stat().st_size
    for number, left in enumerate([0, 1, size - 1], 1):
        stream, spool._stream = spool._stream, Full(spool._stream, left)
        with pytest.raises(OSError, match="No space left"):
            spool.append("tags", "run", {"n": -1}, {"a.txt": tmp_path / "a.txt"})
        spool._stream = stream
        assert spool.written == number and [r.number for r in spool.unsent()] == [*range(number)]
        assert contents(spool) == [(n, []) for n in range(number)]
        spool.append("tags", "run", {"n": number})
    assert contents(spool) == [(n, []) for n in range(4)]


def test_a_full_disk_in_a_files_copy_loses_that_record(spool, tmp_path):
    (tmp_path / "sub").mkdir()
    for n in range(3):
        limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        if n == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 12, hard))
        try:
            spool.append("artifacts", "run", {"n": n}, {f"{n}.txt": b"x" * (1 << 14)})
        except OSError:
            assert n == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    assert contents(spool) == [(0, ["0.txt"]), (2, ["2.txt"])]


def test_a_full_disk_that_keeps_no_note_costs_only_that_records_are_sent_again(spool, monkeypatch):
    for n in range(3):
        spool.append("tags", "run", {"n": n})
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
        for record in list(spool.unsent())[:2]:
            spool.took(record, f"id-{record.number}")
    assert (spool.sent, Spool(spool.folder).sent) == (2, 0)
    spool.took(next(spool.unsent()))
    again = Spool(spool.folder)
    assert (again.sent, again.runs) == (3, {"run": "id-1"})  # the note of the runs is made up for


# --- damage --------------------------------------------------------------------------------------


DAMAGES = {
    "empty": b"",
    "binary": b"\xff\x00",
    "list": b"[]",
    "partial": b'{"verb": "tags"}',
    "number": b'{"verb": 1}',
    "deep": b"[" * 200_000,
    "parents": b'{"verb": "start", "run": "r", "content": {"parent": []}}',
    "object": b'{"verb": "start", "run": "r", "content": {"parent": {}}}',
}


@pytest.mark.parametrize("line", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_line_is_a_record_of_its_own(spool, line):
    spool.append("start", "run", {"n": 0, "parent": None})
    with (spool.folder / "records.jsonl").open("ab") as out:
        out.write(line + b"\n")
    again = Spool(spool.folder)
    again.append("tags", "run", {"n": 1}, {"a.txt": b"a"})
    found = list(again.unsent())
    assert [record.verb for record in found] == ["start", DAMAGED, "tags"]
    assert [record.number for record in found] == [0, 1, 2]
    assert [file.name for file in found[2].files] == ["a.txt"]  # the numbers of files still fit
    assert again.unfinished() == ["run"]
    for record in found:
        again.took(record)
    again.close()
    assert [path.name for path in spool.folder.parent.iterdir()] == ["aside"]  # nothing is deleted


@pytest.mark.parametrize("content", ["", "x", "-3", "99", "[1]", '{"run": 5}', "[" * 200_000])
def test_damaged_notes_send_all_records_again(spool, content):
    for n in range(3):
        spool.append("tags", "run", {"n": n})
    for name in ("sent", "runs.json"):
        (spool.folder / name).write_text(content)
    again = Spool(spool.folder)
    assert again.is_continued and again.runs == {}
    assert (again.sent, again.waiting) == (0, 3)


TAILS = {"zeros": b"\0" * 300, "text": b"<html>", "half": b'{"verb": "metr' + b"\0" * 20}


@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
@pytest.mark.parametrize("is_all", [True, False])
def test_an_end_that_no_process_wrote_is_a_damaged_record(spool, tmp_path, tail, is_all):
    spool.append("start", "run", {"parent": None})
    spool.release()
    with (spool.folder / "records.jsonl").open("wb" if is_all else "ab") as out:
        out.write(tail)
    (again,) = left_behind(pytest.fail, tmp_path)
    again.append("finish", "run", {})
    again.release()
    (again,) = left_behind(pytest.fail, tmp_path)
    assert verbs(again) == [*([] if is_all else ["start"]), DAMAGED, "finish"]
    for record in list(again.unsent()):
        again.took(record)
    again.close()
    assert tail in (tmp_path / "aside" / spool.folder.name / "records.jsonl").read_bytes()


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_spool_that_lost_its_records_is_set_aside_with_a_sentence(spool, tmp_path, is_gone):
    spool.append("artifacts", "run", {}, {"a.txt": b"a"})
    spool.release()
    records = spool.folder / "records.jsonl"
    records.unlink() if is_gone else records.write_bytes(b"")
    said: list[str] = []
    assert left_behind(said.append, tmp_path) == []
    (sentence,) = said
    assert "its records.jsonl is empty or gone; they are set aside as" in sentence
    assert (tmp_path / "aside" / spool.folder.name / "files" / "0" / "a.txt").is_file()


def test_a_job_that_wrote_nothing_leaves_nothing(spool, tmp_path):
    spool.release()
    (again,) = left_behind(pytest.fail, tmp_path)
    again.close()
    assert list(tmp_path.iterdir()) == []


def test_a_spool_that_fails_otherwise_blocks_nobody(spool, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path))
    for name in ("bad", "good"):
        each = Spool.create(TARGET, tmp_path / "spool", name)
        each.append("start", "run", {"parent": None})
        each.release()
    whole = Spool.unfinished
    monkeypatch.setattr(
        Spool, "unfinished", lambda spool: whole(spool) if spool.folder.name == "good" else 1 / 0
    )
    said: list[str] = []
    monkeypatch.setattr("raypipe.tracking.orphans.Sender", lambda spool, *_: spool.folder.name)
    assert orphans(said.append) == ["good"]
    assert len(said) == 1 and "bad cannot be sent (ZeroDivisionError" in said[0]
    monkeypatch.setattr(Spool, "problem", lambda spool: 1 / 0)
    assert left_behind(said.append) == [] and "bad cannot be read (division" in said[1]


FOREIGN = {
    "empty": "",
    "zeros": "\x00" * 30,
    "list": "[]",
    "older": json.dumps({"uri": "http://there"}),
    "newer": json.dumps({**TARGET, "format": 2}),
    "number": json.dumps({**TARGET, "uri": 3}),
    "deep": "[" * 200_000,
}


@pytest.mark.parametrize("kind", [*FOREIGN, "absent"])
def test_a_foreign_spool_is_set_aside_with_a_sentence(spool, tmp_path, kind):
    spool.append("start", "run", {})
    spool.close()
    target = spool.folder / "target.json"
    target.unlink() if kind == "absent" else target.write_text(FOREIGN[kind])
    good = Spool.create(TARGET, tmp_path, "zzz")
    good.append("start", "run", {})
    good.close()
    said: list[str] = []
    held = left_behind(said.append, tmp_path)
    assert [left.folder for left in held] == [good.folder]
    aside = tmp_path / "aside" / spool.folder.name
    (sentence,) = said
    assert str(spool.folder) in sentence and str(aside) in sentence and "target.json" in sentence
    assert (aside / "records.jsonl").is_file()
    assert left_behind(said.append, tmp_path) == [] and len(said) == 1  # it is said once


def test_a_folder_that_cannot_be_read_blocks_nobody(spool, tmp_path, monkeypatch):
    spool.append("start", "run", {})
    spool.close()
    other = tmp_path / "0"
    other.mkdir()
    (other / "target.json").write_text("{}")
    (other / "lock").mkdir()  # opening it fails, for everyone
    (tmp_path / "1").write_text("no folder")
    (tmp_path / "2").mkdir()
    said: list[str] = []
    assert [held.folder for held in left_behind(said.append, tmp_path)] == [spool.folder]
    assert len(said) == 1 and f"{other} cannot be read" in said[0]


def test_a_spool_of_that_name_goes_on(tmp_path):
    first = Spool.create(TARGET, tmp_path, "job")
    assert not first.is_continued
    first.append("start", "run", {})
    first.took(next(first.unsent()), "id")
    first.release()
    second = Spool.create({**TARGET, "uri": "elsewhere"}, tmp_path, "job")
    assert second.folder == first.folder and second.is_continued
    assert (second.runs, second.sent, second.target) == ({"run": "id"}, 1, TARGET)
    assert Spool.create(TARGET, tmp_path, "job").folder != first.folder  # it is held
