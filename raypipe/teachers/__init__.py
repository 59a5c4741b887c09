"""Teachers: configs whose `scores` names the step that gives every document of a list a value.

`values` says whether a value is a score (higher is better) or a rank (1 is best), `needs_lists`
whether it depends on the list's other documents; `check` refuses a teacher whose files, models or
packages are not there.
"""

from typing import Annotated

from pydantic import Field

from raypipe.teachers.ensemble import OWN, Ensemble, SingleTeacher

Teacher = Annotated[SingleTeacher | Ensemble, Field(discriminator="type"), OWN]
"""Adding a teacher: one class with these four, and its name in `ensemble.SingleTeacher`."""
