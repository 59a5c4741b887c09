"""A sqlite database for MLflow, made whole or not at all.

MLflow makes its tables one by one, and forgets where it was when it is killed between two of them:
from then on every start fails at the table that is there already.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

from raypipe.storage.files import close_file, locked

_log = logging.getLogger(__name__)


def make_database(file: Path) -> None:
    """Make the database if it is missing; one that was left half-made and holds no run, anew.

    The half-made one stays beside it, and a warning names it.
    """
    if _is_whole(file):
        return
    with locked(Path(f"{file}.new.lock")):  # not the lock of who asks for the experiment
        if _is_whole(file):  # another job made it meanwhile
            return
        new = Path(f"{file}.new")
        new.unlink(missing_ok=True)  # of a job that was killed here
        _make_tables(new)
        close_file(new)
        with new.open("rb") as written:
            os.fsync(written.fileno())
        if file.exists() and file.stat().st_size:
            aside = _free_name(Path(f"{file}.half-made"))
            file.rename(aside)
            _log.warning(
                "tracking: %s was left half-made by a job that was killed, and held no run; it is "
                "now %s, and a new one is made",
                file,
                aside.name,
            )
        new.rename(file)


def _is_whole(file: Path) -> bool:
    """Whether MLflow can work with the file; of one that has runs it says itself what is wrong."""
    from mlflow.store.db.utils import Base

    if not file.exists():
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            named = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in named}
            if set(Base.metadata.tables) <= tables:
                return True
            return "runs" in tables and bool(database.execute("SELECT 1 FROM runs").fetchone())
    except sqlite3.Error:
        return True


def _make_tables(file: Path) -> None:
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    engine = create_sqlalchemy_engine(f"sqlite:///{file}")
    try:
        _initialize_tables(engine)
    finally:
        engine.dispose()


def _free_name(path: Path) -> Path:
    """The path, or the first that is free with a number behind it."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = Path(f"{path}-{number}")
    return free
