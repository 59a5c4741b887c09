"""Files on this machine: checksums that are remembered."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from raypipe.config import ConfigError
from raypipe.storage import files
from raypipe.storage.files import file_checksum, home, sha256

CONTENT = b"as published"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    path = tmp_path / "scores.tsv"
    path.write_bytes(CONTENT)
    return path


def memos(file: Path) -> list[Path]:
    return sorted((file.parent / "home" / "cache" / "checksums").iterdir())


@pytest.mark.parametrize(
    "left",
    [b"", SHA256[:31].encode(), SHA256.upper().encode(), b"\xff" * 64],
    ids=["empty", "half", "other letters", "no text"],
)
def test_what_is_no_checksum_is_not_believed(file, left):
    """What a process that was killed while it wrote may have left behind."""
    file_checksum(file)
    (memo,) = memos(file)
    memo.write_bytes(left)
    assert file_checksum(file) == SHA256
    assert memo.read_text() == SHA256 and memos(file) == [memo]


def test_a_memo_appears_whole(file, monkeypatch):
    file_checksum(file)
    (memo,) = memos(file)
    memo.unlink()

    def killed(path: Path, mode: str, **options: str) -> None:
        path.write_bytes(SHA256[:20].encode())
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(files, "open_own", killed)
        assert file_checksum(file) == SHA256
    assert not memo.exists()


def test_a_files_checksum_follows_its_content(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    path = tmp_path / "file"
    path.write_text("7")
    seven = file_checksum(path)
    assert seven.startswith("7902699be42c8a8e")
    path.write_text("77")
    assert file_checksum(path) not in (seven, "")
    path.write_text("7")
    os.utime(path, ns=(5, 5))
    assert file_checksum(path) == seven


def test_a_checksum_is_remembered_by_what_a_write_changes(file, monkeypatch):
    """The bytes of one length, written over with the old mtime put back: only ctime tells."""
    file_checksum(file)
    assert [memo.read_text() for memo in memos(file)] == [SHA256]
    stat = file.stat()
    for content in (b"as damaged!!", b"as replaced!"):
        file.write_bytes(content)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert file_checksum(file) == hashlib.sha256(content).hexdigest()
    moved = file.rename(file.with_name("moved"))
    file_checksum(moved)
    monkeypatch.setattr(files, "sha256", lambda stream: pytest.fail("it was read again"))
    assert file_checksum(moved) == hashlib.sha256(content).hexdigest()


def test_another_file_of_one_name_is_read(file):
    other = file.with_name("other")
    other.write_bytes(b"as published"[::-1])
    stat = file.stat()
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file_checksum(file) == SHA256
    other.replace(file)
    assert file_checksum(file) != SHA256


def test_a_file_that_is_being_written_has_no_checksum(file, monkeypatch):
    def meanwhile(stream: Any) -> str:
        file.write_bytes(CONTENT + b" and more")
        return sha256(stream)

    monkeypatch.setattr(files, "sha256", meanwhile)
    with pytest.raises(ConfigError, match=r"scores\.tsv: .* being written; run the command again"):
        file_checksum(file)
    assert not (file.parent / "home" / "cache").exists()


def test_a_home_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home" / "below"))
    path = tmp_path / "file"
    path.write_text("7")
    assert file_checksum(path).startswith("7902699be42c8a8e")


@pytest.fixture(params=[0o000, 0o022])
def umask(request):
    os.umask(request.param)


def open_to_others(folder: Path) -> list[Path]:
    return [path for path in [folder, *folder.rglob("*")] if path.stat().st_mode & 0o077]


def test_everything_in_the_home_is_its_owners_alone(file, umask):
    file_checksum(file)
    home = file.parent / "home"
    with files.locked(home / "x.lock"), files.open_own(home / "one", "w") as out:
        out.write("1")
    files.make_folder(home / "a" / "b")
    assert len(list(home.rglob("*"))) == 7 and open_to_others(home) == []


def test_a_home_that_was_open_is_closed(file, umask):
    home = file.parent / "home"
    (home / "old").mkdir(parents=True)
    home.chmod(0o755)
    files.make_folder(home / "new")
    assert home.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_more_than_raypipes_stays_as_it_is(file, monkeypatch, umask):
    home = file.parent / "home"
    home.mkdir()
    home.chmod(0o1777)  # like /tmp
    files.make_folder(home / "a")
    assert home.stat().st_mode & 0o7777 == 0o1777
    home.chmod(0o755)
    monkeypatch.setenv("HOME", str(home))
    files.make_folder(home / "b")
    assert home.stat().st_mode & 0o777 == 0o755
    assert (home / "b").stat().st_mode & 0o777 == 0o700


def test_outside_the_home_the_umask_decides(file):
    os.umask(0o002)  # of a group that shares a storage
    shared = file.parent / "shared" / "storage"
    files.make_folder(shared)
    with files.locked(shared / "x.lock"):
        pass
    assert shared.stat().st_mode & 0o777 == 0o775
    assert (shared / "x.lock").stat().st_mode & 0o777 == 0o664


def test_home_is_absolute_and_the_environment_decides(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYPIPE_HOME", "below")
    assert home() == tmp_path / "below"
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("RAYPIPE_HOME", "~/r")
    assert home() == Path("/home/someone/r")
    for unset in (
        lambda: monkeypatch.setenv("RAYPIPE_HOME", ""),
        lambda: monkeypatch.delenv("RAYPIPE_HOME"),
    ):
        unset()
        assert home() == Path("/home/someone/.raypipe")


def test_a_pipe_has_no_checksum(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe: expected a file, found a pipe or device; put"):
        file_checksum(tmp_path / "pipe")  # to open it would wait for its writer


def test_of_a_line_no_more_than_the_limit_is_read(monkeypatch):
    """A gzip file of 3 MB may hold a line of 3 GB."""

    class Endless:
        def readline(self, size: int) -> bytes:
            return b"x" * size  # of the whole line, -1, none

    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    with pytest.raises(ConfigError, match=r"^a, line 1: expected a line of at most 1,000 bytes, f"):
        next(files.numbered_lines("a", Endless()))


def test_a_wrong_path_gets_similar_names_and_no_list_of_a_folder(tmp_path):
    for name in ("bm25.run", "bm25-2.run", "bm26.run", "bm25.trec.gz", *map(str, range(50))):
        (tmp_path / name).touch()
    (tmp_path / "runs").mkdir()

    def refused(text: str) -> str:
        with pytest.raises(ConfigError) as error:
            files.check_files([text])
        return str(error.value)

    assert refused(f"{tmp_path}/bm52.run").endswith(
        "bm52.run: not there; did you mean 'bm25-2.run', 'bm26.run' or 'bm25.run'?"
    )
    expected = f"not there; check the path, nothing in {tmp_path} has a similar name"
    assert refused(f"{tmp_path}/dense.tsv").endswith(expected)
    assert refused(f"{tmp_path}/rnus/x.run").endswith("x.run: not there; did you mean 'runs'?")
    assert refused(f"{tmp_path}/runs").endswith(
        "expected a file, found a folder; name a file in it"
    )


def test_a_path_in_a_large_folder_is_compared_with_some_names(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_NAMES", 3)
    compared = []
    monkeypatch.setattr(files, "near", lambda name, names, most: compared.extend(names) or [])
    for name in range(9):
        (tmp_path / f"part-{name}").touch()
    assert "nothing in" in files.near_names(tmp_path / "part-10") and len(compared) == 3
