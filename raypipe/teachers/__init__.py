"""Teachers: configs whose `scores` names the step that gives every document of a list a value."""

from typing import Annotated

from pydantic import Field

from raypipe.teachers.model import BiEncoderTeacher, Fusion
from raypipe.teachers.published import RunFile

Teacher = Annotated[BiEncoderTeacher | Fusion | RunFile, Field(discriminator="type")]
"""Adding a teacher: one class with `values`, `scores` and `check`, and its name here."""

__all__ = ["BiEncoderTeacher", "Fusion", "RunFile", "Teacher"]
