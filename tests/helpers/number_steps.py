"""Steps whose artifacts are numbers: one written down, and the sum of others."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from raypipe.storage.artifacts import Attempt, Step


@dataclass(frozen=True)
class Number(Step):
    """Writes its value; `label` is only a name."""

    value: int
    label: str = "number"
    log: list[str] = field(default_factory=list, compare=False)

    kind: ClassVar[str] = "numbers"

    @property
    def name(self) -> str:
        return self.label

    def spec(self) -> dict[str, Any]:
        return {"value": self.value}

    def run(self, attempt: Attempt, context: Any) -> dict[str, int]:
        self.log.append(self.label)
        with attempt.open("value.txt") as out:
            out.write(str(self.value).encode())
        return {"rows": 1}


@dataclass(frozen=True)
class Sum(Step):
    """Adds the numbers of its inputs; `hint` is read too, but is not an input."""

    parts: tuple[Step, ...]
    hint: Number | None = None
    log: list[str] = field(default_factory=list, compare=False)

    kind: ClassVar[str] = "sums"
    name: ClassVar[str] = "sum"  # type: ignore[misc]

    def inputs(self) -> dict[str, Step]:
        return {f"part{i}": part for i, part in enumerate(self.parts)}

    def needs(self) -> dict[str, Step]:
        return {"hint": self.hint} if self.hint else {}

    def run(self, attempt: Attempt, context: Any) -> dict[str, int]:
        self.log.append("sum")
        values = {n: read(one.local()) for n, one in attempt.inputs.items()}
        with attempt.open("value.txt") as out:
            out.write(str(sum(values.values())).encode())
        return {"rows": len(values)}


def read(folder: Path) -> int:
    return int((folder / "value.txt").read_text())
