"""The cache of a node: each remote folder copied once, never more than the limit, none in use lost.

Other processes are real ones, which say how far they are and wait for a word.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from raypipe.config import ConfigError
from raypipe.storage import copies
from raypipe.storage.cache import LIMIT, discard, localize, localized, surplus
from raypipe.storage.copies import RemoteFolder
from raypipe.storage.files import file_checksum

MB = 1_000_000
PATIENCE = 60
"""Seconds until a test gives up a process that says nothing; nothing waits that long."""


def limited_to(size: int) -> str:
    return f"{size / 1e9:.9f}"


@pytest.fixture
def bucket(tmp_path, monkeypatch) -> Callable[..., RemoteFolder]:
    """Writes a folder of one file on a file system that is not this machine's."""
    (tmp_path / "remote").mkdir()
    fs = pafs.SubTreeFileSystem(str(tmp_path / "remote"), pafs.LocalFileSystem())
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv(LIMIT, limited_to(3 * MB))

    def put(name: str, size: int = MB) -> RemoteFolder:
        content = (name * size)[:size].encode()
        path = f"kind/{name}-0123/attempt-{name}"
        (tmp_path / "remote" / path).mkdir(parents=True)
        (tmp_path / "remote" / path / "data").write_bytes(content)
        files = {"data": {"size": size, "sha256": hashlib.sha256(content).hexdigest()}}
        return RemoteFolder(fs, path, path, files, f"s3://bucket/{path}")

    return put


def use(*remotes: RemoteFolder) -> None:
    """Localize each and let it go."""
    for remote in remotes:
        with localized(remote) as folder:
            assert (folder / "data").stat().st_size == remote.size


def root() -> Path:
    return Path(os.environ["RAYPIPE_HOME"]) / "cache"


def there() -> str:
    """The names of the copies, in order."""
    return "".join(sorted(path.parent.name[0] for path in root().glob("kind/*/attempt-?")))


# --- the size limit ------------------------------------------------------------------------------


def test_the_least_recently_used_copies_go(bucket):
    a, b, c, d = map(bucket, "abcd")
    use(a, b, c)
    assert there() == "abc"
    use(a)  # now b is the one that was not used for longest
    use(d)
    assert there() == "acd"
    assert not (root() / "kind" / "b-0123").exists()
    use(bucket("e", 2 * MB))  # takes two of them
    assert there() == "de"


def test_an_artifact_larger_than_the_limit_is_refused_and_nothing_goes(bucket):
    use(bucket("a"))
    large = bucket("b", 4 * MB)
    said = (
        r"s3://bucket/kind/b-0123/attempt-b: expected an artifact of at most 0\.003 GB, the limit "
        r"of all copies in .*/home/cache, found one of 0\.004 GB; set RAYPIPE_CACHE_GB=1 or more"
    )
    with pytest.raises(OSError, match=said):
        localize(large)
    assert there() == "a"
    use(bucket("c", 3 * MB))  # as large as the limit
    assert there() == "c"


def test_what_does_not_fit_beside_copies_in_use_is_refused_and_nothing_goes(bucket):
    use(bucket("a"))
    with localized(bucket("b", 2 * MB)):
        with pytest.raises(OSError, match=r"in use: b-0123 \(0\.002 GB\); let the jobs end") as no:
            localize(bucket("c", 2 * MB))
        assert "set RAYPIPE_CACHE_GB=1 or more" in str(no.value)
        assert "RAYPIPE_HOME" not in str(no.value)  # the disk is large enough
        assert there() == "ab"  # to remove a would not have helped
    use(bucket("d", 2 * MB))
    assert there() == "d"


def test_a_copy_counts_with_the_size_it_will_have(bucket, others, monkeypatch):
    other = others(bucket("a", 2 * MB), waits="before")
    assert other.recv() == "copies"
    b = bucket("b", 2 * MB)
    with pytest.raises(OSError, match="in use: a-0123"):
        localize(b)
    monkeypatch.setenv(LIMIT, "1")
    disk = shutil.disk_usage("/")._replace(free=3 * MB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    with pytest.raises(OSError, match=r"0\.001 GB free on the disk; in use: a-0123"):
        localize(b)
    other.send("go on")
    assert other.recv() == "holds"


def test_copies_of_the_first_version_count_and_go(bucket):
    a, b = bucket("a", 2 * MB), bucket("b", 2 * MB)
    use(a)
    (root() / f"{a.path}.lock").write_text("")  # its markers told no size
    use(b)
    assert there() == "b"


def test_remembered_checksums_are_no_copies(bucket, tmp_path):
    (tmp_path / "file").write_text("7")
    checksum = file_checksum(tmp_path / "file")
    (memo,) = (root() / "checksums").iterdir()
    use(bucket("a", 3 * MB), bucket("b", 3 * MB))
    assert memo.read_text() == checksum


def test_the_limit_is_half_of_the_disk_unless_the_environment_says_more(bucket, monkeypatch):
    disk = shutil.disk_usage("/")._replace(total=4 * MB, free=100 * MB)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    monkeypatch.delenv(LIMIT)
    use(bucket("a", 2 * MB))
    with pytest.raises(OSError, match="at most"):
        localize(bucket("b", 2 * MB + 1))
    monkeypatch.setenv(LIMIT, "1")
    use(bucket("c", 50 * MB))
    assert there() == "ac"


@pytest.mark.parametrize("text", ["0", "-1", "much", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(bucket, monkeypatch, text):
    monkeypatch.setenv(LIMIT, text)
    with pytest.raises(ConfigError, match=f"{LIMIT}: expected a positive number of GB, .*{text}"):
        localize(bucket("a"))


# --- pruning -------------------------------------------------------------------------------------


def test_the_surplus_is_what_the_limit_does_not_hold(bucket, monkeypatch):
    a, b, c = bucket("a"), bucket("b"), bucket("c")
    use(a, b, c)
    assert surplus() == {}  # they fill the limit
    monkeypatch.setenv(LIMIT, limited_to(MB))
    assert surplus() == {a.path: MB, b.path: MB}
    with localized(a):
        assert surplus() == {b.path: MB, c.path: MB}
        assert not discard(a.path) and there() == "abc"
    assert discard(b.path) and there() == "ac"
    assert not discard(b.path)  # another process was faster


def test_half_a_copy_of_a_dead_process_is_surplus(bucket, others, monkeypatch):
    a = bucket("a")
    other = others(a, waits="after")
    assert other.recv() == "copies"
    assert surplus() == {}  # its process lives
    other.kill()
    assert surplus() == {a.path: MB}
    assert discard(a.path) and not (root() / a.path).parent.exists()


def test_without_a_cache_there_is_no_surplus(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    assert surplus() == {} and not (tmp_path / "home").exists()


# --- the disk ------------------------------------------------------------------------------------


def test_too_little_disk_is_an_error_before_anything_is_copied(bucket, monkeypatch):
    disk = shutil.disk_usage("/")._replace(free=MB // 4)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    monkeypatch.setattr(pafs, "copy_files", None)
    said = (
        r"expected room for 0\.001 GB in .* and 0\.000 GB free on the disk; in use: none; "
        "free space on that disk or set RAYPIPE_HOME"
    )
    with pytest.raises(OSError, match=said) as no:
        localize(bucket("a"))
    assert LIMIT not in str(no.value)  # a higher limit would not help


def test_copies_go_for_the_disk_as_well(bucket, monkeypatch):
    a, b, c = bucket("a"), bucket("b"), bucket("c")
    use(a, b)
    disk = shutil.disk_usage("/")._replace(free=MB // 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    use(c)  # below the limit
    assert there() == "bc"


# --- other processes -----------------------------------------------------------------------------


def hold(remote: RemoteFolder, waits: str, line: Any) -> None:
    """A process that localizes, says so, and lives on until it is ended or hears a word.

    Args:
        waits: for a word `before` it copies, `after` all is copied and nothing checked, or `never`.
    """
    copy_files = pafs.copy_files

    def copies(*args: Any) -> None:
        if waits == "before":
            line.send("copies")
            line.recv()
        copy_files(*args)
        if waits != "before":
            line.send("copies")
        if waits == "after":
            line.recv()

    pafs.copy_files = copies
    localize(remote)
    line.send("holds")
    line.recv()


class Other:
    """A process that runs `hold`."""

    def __init__(self, remote: RemoteFolder, waits: str):
        start = multiprocessing.get_context("spawn")  # a forked one would share this one's locks
        self._line, theirs = start.Pipe()
        self._process = start.Process(target=hold, args=(remote, waits, theirs), daemon=True)
        self._process.start()
        self.send = self._line.send
        self.silent = lambda: not self._line.poll(0.5)

    def recv(self) -> str:
        assert self._line.poll(PATIENCE), "the process says nothing"
        said: str = self._line.recv()
        return said

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


@pytest.fixture
def others() -> Iterator[Callable[..., Other]]:
    started: list[Other] = []

    def start(remote: RemoteFolder, waits: str = "never") -> Other:
        started.append(Other(remote, waits))
        return started[-1]

    yield start
    for other in started:
        other.kill()


def test_a_copy_that_another_process_uses_stays_until_it_is_dead(bucket, others):
    a, b, c, d, e = map(bucket, "abcde")
    other = others(a)
    assert [other.recv(), other.recv()] == ["copies", "holds"]
    use(b, c, d)  # a is the oldest
    assert there() == "acd"
    other.kill()
    use(e)
    assert there() == "cde"


def test_two_processes_copy_once(bucket, others):
    a = bucket("a")
    first = others(a, waits="after")
    assert first.recv() == "copies"
    second = others(a)
    assert second.silent() and there() == ""
    first.send("go on")
    assert first.recv() == second.recv() == "holds"
    first.kill()
    use(*map(bucket, "bcd"))
    assert there() == "acd"  # the second one holds it too


def test_a_process_that_waits_copies_if_the_first_one_dies(bucket, others):
    a = bucket("a")
    first = others(a, waits="after")
    assert first.recv() == "copies"
    second = others(a)
    assert second.silent()
    first.kill()
    assert [second.recv(), second.recv()] == ["copies", "holds"]
    assert (root() / a.path / "data").stat().st_size == MB


def test_the_half_copy_of_a_dead_process_goes(bucket, others):
    a = bucket("a")
    other = others(a, waits="after")
    assert other.recv() == "copies"
    half = (root() / a.path).with_suffix(".part")
    assert (half / "data").is_file()
    other.kill()
    use(bucket("b"))
    assert there() == "b" and not half.parent.exists()


def test_a_child_that_outlives_its_parent_s_use_keeps_no_copy(bucket):
    with localized(bucket("a", 3 * MB)):
        sleeper = [sys.executable, "-c", "input()"]
        child = subprocess.Popen(sleeper, stdin=subprocess.PIPE, close_fds=False)
    try:
        remote, deadline = bucket("b", 3 * MB), time.monotonic() + PATIENCE
        while there() != "b":  # any process that starts meanwhile holds all locks until its exec
            assert time.monotonic() < deadline and child.poll() is None
            with contextlib.suppress(OSError):
                use(remote)
        assert child.poll() is None
    finally:
        child.communicate(b"\n", timeout=PATIENCE)


# --- in one process ------------------------------------------------------------------------------


def test_what_is_localized_stays_as_long_as_the_process(bucket):
    a, b, c, d = map(bucket, "abcd")
    folder = localize(a)
    assert localize(a) == folder  # the second use replaces the first
    use(a, b, c, d)
    assert there() == "acd"
    assert (folder / "data").read_bytes() == b"a" * MB


def test_a_copy_with_another_checksum_is_refused_and_not_kept(bucket, tmp_path):
    a = bucket("a")
    stored = tmp_path / "remote" / a.path / "data"
    good = stored.read_bytes()
    stored.write_bytes(b"x" * MB)  # of the same size: only the checksum tells
    with pytest.raises(OSError, match=r"attempt-a/data does not have its committed checksum"):
        localize(a)
    assert list((root() / "kind").iterdir()) == []
    stored.write_bytes(good)
    use(a)


def test_a_removal_that_was_cut_off_leaves_no_copy(bucket, monkeypatch):
    a, b = bucket("a", 3 * MB), bucket("b", 3 * MB)
    use(a)

    def half(folder: Path, **_: Any) -> None:
        if folder.exists():
            (folder / "data").unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as cut:
        cut.setattr(shutil, "rmtree", half)
        with pytest.raises(KeyboardInterrupt):
            use(b)
    assert there() == ""
    use(a)  # copied again
    assert there() == "a"


# --- copies that were changed --------------------------------------------------------------------


@pytest.mark.parametrize("change", ["gone", "shorter", "of the same size", "no memory of it"])
def test_a_file_that_changed_is_fetched_again(bucket, change):
    """Somebody cleaned a disk, or a disk failed."""
    remote = bucket("a")
    with localized(remote) as folder:
        path, whole = folder / "data", (folder / "data").read_bytes()
    if change == "gone":
        path.unlink()
    elif change == "shorter":
        path.write_bytes(whole[:-1])
    else:
        path.write_bytes(b"b" + whole[1:])
    if change == "no memory of it":
        folder.with_suffix(".seen").unlink()
    for _ in range(2):
        with localized(remote) as folder:
            assert path.read_bytes() == whole
            assert [p.name for p in folder.iterdir()] == ["data"]


def test_a_file_is_fetched_again_while_another_process_uses_the_copy(bucket):
    remote = bucket("a")
    with localized(remote) as folder, (folder / "data").open("rb") as opened:
        whole = opened.read()
        (folder / "data").unlink()
        with localized(remote) as again:
            assert (again / "data").read_bytes() == whole


def test_files_that_did_not_change_are_not_read_again(bucket, monkeypatch):
    remote = bucket("a")
    use(remote)

    def refused(stream):
        raise AssertionError("a checksum is computed once")

    monkeypatch.setattr(copies, "sha256", refused)
    use(remote)


def spoilt(path: Path, how: str) -> None:
    """Put another kind of file in the place of a file or folder, as a failing disk does."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if how == "folder":
        path.mkdir(parents=True)
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "dangling link":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(how.encode("latin1"))


@pytest.mark.parametrize("how", ["[]", "null", "\0" * 50, "[" * 100_000, "folder"])
def test_a_damaged_memory_of_checksums_is_made_anew(bucket, how):
    remote = bucket("a")
    use(remote)
    seen = (root() / remote.path).with_suffix(".seen")
    intact = seen.read_bytes()
    spoilt(seen, how)
    use(remote)
    assert seen.read_bytes() == intact


@pytest.mark.parametrize("how", ["\0\0\0", "text", "\xff", "-99", "folder"])
def test_a_damaged_marker_of_another_copy_stops_nobody(bucket, how):
    a, b = bucket("a", 2 * MB), bucket("b", 2 * MB)
    use(a)
    spoilt((root() / a.path).with_suffix(".lock"), how)
    use(b)
    # it counted with what it has on the disk; whether a process uses it, a folder cannot say
    assert there() == ("ab" if how == "folder" else "b")


@pytest.mark.parametrize("below", ["", "data", "deep", "deep/data"])
@pytest.mark.parametrize("how", ["file", "folder", "pipe", "dangling link"])
def test_another_kind_of_file_in_a_copy_makes_way(bucket, tmp_path, below, how):
    remote = bucket("a")
    deep = tmp_path / "remote" / remote.base / "deep" / "data"
    deep.parent.mkdir()
    shutil.copy(deep.parent.parent / "data", deep)
    remote = dataclasses.replace(remote, files={**remote.files, "deep/data": remote.files["data"]})
    with localized(remote) as folder:
        pass
    spoilt(folder / below, how)
    with localized(remote) as folder:
        for name in remote.files:
            assert (folder / name).read_bytes() == b"a" * MB
        assert sorted(path.name for path in folder.iterdir()) == ["data", "deep"]


@pytest.mark.parametrize("how", ["file", "folder", "dangling link"])
def test_another_kind_of_file_where_a_copy_is_filled_makes_way(bucket, how):
    remote = bucket("a")
    part = (root() / remote.path).with_suffix(".part")
    part.parent.mkdir(parents=True)
    spoilt(part, how)
    use(remote)


@pytest.mark.parametrize(
    ("place", "how"),
    [("", "file"), ("kind", "file"), (".lock", "folder"), ("kind/a-0123/attempt-a.lock", "folder")],
)
def test_what_stands_in_the_way_of_the_cache_is_named(bucket, place, how):
    remote = bucket("a")
    use(remote)
    spoilt(root() / place, how)
    with pytest.raises(ConfigError, match=f"^{root() / place}: expected .*; remove it$"):
        localize(remote)


def test_only_committed_files_are_copied(bucket, tmp_path):
    """Notes of the writer lie beside them."""
    remote = bucket("a")
    (tmp_path / "remote" / remote.base / ".writer").write_text("a job")
    with localized(remote) as folder:
        assert [path.name for path in folder.iterdir()] == ["data"]


def test_the_error_of_a_copy_is_one_of_the_user_s_and_goes_between_processes(bucket, tmp_path):
    remote = bucket("a")
    (tmp_path / "remote" / remote.base / "data").write_bytes(b"x" * MB)
    with pytest.raises(ConfigError, match="remove the artifact") as damaged:
        localize(remote)
    again = pickle.loads(pickle.dumps(damaged.value))
    assert isinstance(again, OSError) and str(again) == str(damaged.value)
