"""Files from outside: an edit between plan and read, or while they are read, is an error."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest
from number_steps import Number, Sum, read

from raypipe.config import ConfigError
from raypipe.storage.artifacts import Attempt, Step, Store
from raypipe.storage.builder import Builder
from raypipe.storage.files import file_checksum


def nothing() -> None:
    """What happens to the file."""


@dataclass(frozen=True)
class FromFile(Step):
    """The number in a file of the user's."""

    file: Path
    meanwhile: Callable[[], Any] = field(default=nothing, compare=False)
    """Called before the file is read."""
    afterwards: Callable[[], Any] = field(default=nothing, compare=False)
    needed: Step | None = None

    kind: ClassVar[str] = "numbers"
    name: ClassVar[str] = "file"  # type: ignore[misc]

    def spec(self) -> Mapping[str, Any]:
        return {"file": file_checksum(self.file)}

    def needs(self) -> Mapping[str, Step]:
        return {"copy": self.needed} if self.needed else {}

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        self.meanwhile()
        with attempt.open("value.txt") as out:
            out.write(self.file.read_bytes())
        self.afterwards()
        return {}


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    path = tmp_path / "number.txt"
    path.write_text("7")
    return path


@pytest.fixture
def builder(tmp_path) -> Builder:
    return Builder(Store(str(tmp_path / "storage")))


def rewrite(file: Path, text: str) -> None:
    """Write over the file and put its mtime back."""
    stat = file.stat()
    file.write_text(text)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def left(builder: Builder, step: Step) -> list[Path]:
    return list((Path(builder.store.root) / step.path).glob("*"))


@pytest.mark.parametrize("edit", [lambda f: rewrite(f, "8"), Path.unlink], ids=["written", "gone"])
def test_an_edit_between_plan_and_read(builder, file, edit):
    step = FromFile(file)
    _ = step.digest
    edit(file)
    with pytest.raises(ConfigError, match=rf"{file}: expected the content .* planned with"):
        builder.get(step)
    assert left(builder, step) == []
    if file.exists():
        assert read(builder.get(FromFile(file)).local()) == 8, "a new plan"


def test_an_edit_while_the_file_is_read(builder, file):
    step = FromFile(file, meanwhile=lambda: rewrite(file, "8"))
    with pytest.raises(ConfigError, match=rf"{file}: .* run the command again"):
        builder.get(step)
    assert left(builder, step) == []


def test_what_is_written_back_was_read_in_between(builder, file):
    step = FromFile(file, lambda: file.write_text("8"), lambda: file.write_text("7"))
    with pytest.raises(ConfigError, match="written since"):
        builder.get(step)


def test_the_same_content_in_another_place_or_time_is_no_edit(builder, file, tmp_path):
    step = FromFile(file, afterwards=lambda: (tmp_path / "link").hardlink_to(file))
    _ = step.digest
    (tmp_path / "copy").write_text("7")
    (tmp_path / "copy").replace(file)
    assert read(builder.get(step).local()) == 7


def test_a_plan_that_travelled_is_still_the_plan(builder, file):
    step = Sum((Number(1), FromFile(file)))
    _ = step.digest
    file.write_text("8")
    with pytest.raises(ConfigError, match="planned with"):
        builder.get(pickle.loads(pickle.dumps(step)))


@dataclass(frozen=True)
class NamesItsInputAnew(Sum):
    """Its input is another object whenever it is asked for."""

    file: Path = Path()

    def inputs(self) -> dict[str, Step]:
        return {"part": FromFile(self.file)}


def test_an_input_that_was_named_anew_after_an_edit(builder, file):
    step = NamesItsInputAnew((), file=file)
    _ = step.digest
    file.write_text("8")
    with pytest.raises(ConfigError, match=r"expected the part with digest .* changed since"):
        builder.get(step)


def test_stored_copies_are_read_and_the_file_may_change(builder, file):
    """What a step needs was copied and checked: a file that is no longer read may be written."""
    step = FromFile(file, afterwards=lambda: file.write_text("8"), needed=Number(1))
    made = builder.get(step)
    assert made.manifest["spec"] == {"file": FromFile(made.local() / "value.txt").spec()["file"]}


@pytest.mark.parametrize("when", ["before it is read", "afterwards"])
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(builder, file, when):
    def replace() -> None:
        file.unlink()
        os.mkfifo(file)

    step = FromFile(file, afterwards=replace if when == "afterwards" else nothing)
    _ = step.digest
    if when != "afterwards":
        replace()
    with pytest.raises(ConfigError, match=f"{file}: expected a file, found a pipe"):
        builder.get(step)
