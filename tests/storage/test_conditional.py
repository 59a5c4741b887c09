"""Of several writers one creates a file, and one replaces it."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from raypipe.storage import conditional
from raypipe.storage.conditional import DiskFiles, ObjectFiles


def memory() -> ObjectFiles:
    from obstore.store import MemoryStore

    return ObjectFiles(MemoryStore())


@pytest.fixture(params=["disk", "disk without links", "objects"])
def files(request, tmp_path, monkeypatch):
    if request.param == "objects":
        return memory()
    if request.param == "disk without links":

        def refused(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(conditional.os, "link", refused)
    return DiskFiles(tmp_path / "storage")


def content(files, path: str) -> bytes:
    if isinstance(files, DiskFiles):
        return (files.root / path).read_bytes()
    import obstore

    return bytes(obstore.get(files.store, path).bytes())


def winners(work) -> list[int]:
    """The numbers of those of eight threads whose work says that they won."""
    start, won = threading.Barrier(8), []

    def run(number: int) -> None:
        start.wait()
        if work(number):
            won.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won


def test_one_of_many_creates_a_file(files):
    for turn in range(10):
        won = winners(lambda number, turn=turn: files.create(f"a/{turn}", b"%d" % number))
        assert len(won) == 1 and content(files, f"a/{turn}") == b"%d" % won[0]


def test_one_of_many_replaces_a_file_that_they_have_read(files):
    for turn in range(10):
        files.create(f"a/{turn}", b"damaged")
        won = winners(
            lambda number, turn=turn: files.replace(f"a/{turn}", b"%d" % number, b"damaged")
        )
        assert len(won) == 1 and content(files, f"a/{turn}") == b"%d" % won[0]


def test_what_nobody_has_read_is_not_replaced(files):
    files.create("manifest", b"of a winner")
    assert not files.replace("manifest", b"mine", b"damaged")
    assert content(files, "manifest") == b"of a winner"


def test_what_is_gone_is_created(files):
    assert files.replace("manifest", b"mine", b"damaged")
    assert content(files, "manifest") == b"mine"


def test_a_file_has_its_name_when_it_is_on_the_disk(tmp_path, monkeypatch):
    """Without the sync, a power loss could leave a name and no content."""
    synced, link = [], os.link
    monkeypatch.setattr(
        conditional.os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}"))
    )

    def linked(source, target):
        assert str(source) in synced
        link(source, target)

    monkeypatch.setattr(conditional.os, "link", linked)
    assert DiskFiles(tmp_path).create("a/b/manifest", b"x")
    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= set(synced)
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["manifest"]


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(conditional.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        DiskFiles(tmp_path).create("manifest", b"x")
    assert list(tmp_path.iterdir()) == []
