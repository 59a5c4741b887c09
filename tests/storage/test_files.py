"""Files on this machine: checksums that are remembered."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from raypipe.config import ConfigError
from raypipe.storage import files
from raypipe.storage.files import file_checksum, home, sha256, without_secrets

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

    def killed(path: Path, text: str, *encoding: str) -> None:
        path.write_bytes(text[:20].encode())
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", killed)
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://host/db"),
        ("postgresql://me:se@cret@host/db", "postgresql://host/db"),
        ("postgresql://me:se/cret@host/db", "postgresql://host/db"),
        ("postgresql://me:se?cret@host/db", "postgresql://host/db"),
        ("postgresql://me:se#cret@host/db", "postgresql://host/db"),
        ("postgresql://me:12/se?cret@host", "postgresql://host"),
        ("postgresql://host/db?user=me&password=secret", "postgresql://host/db"),
        ("postgresql:///db?password=secret", "postgresql:///db"),
        ("s3://AKIA:secret@bucket/x?secret_key=secret#secret", "s3://bucket/x"),
        ("http://secret@host:5000", "http://host:5000"),
        ("http://host:5000/path", "http://host:5000/path"),
        ("s3://bucket/me@home.org/x", "s3://bucket/me@home.org/x"),
        ("sqlite:////home/me@home/x.db", "sqlite:////home/me@home/x.db"),
        ("/data/a@b", "/data/a@b"),
        ("/data/storage", "/data/storage"),
        ("s3://bucket/prefix", "s3://bucket/prefix"),
        ("s3://AKIA:secret@bucket/x?endpoint_override=h:1&secret_key=s#f", "s3://bucket/x"),
        ("file:///data", "file:///data"),
        ("s3://bucket/me@home/x", "s3://bucket/me@home/x"),
        ("no answer from http://me:secret@h/api, asked http://i:secret@g", None),
    ],
)
def test_secrets_are_cut(text, shown):
    assert without_secrets(text) == (shown or "no answer from http://h/api, asked http://g")


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
