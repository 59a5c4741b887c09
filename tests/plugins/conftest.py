"""Every test of plug-ins begins and ends without one."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from own_packages import forget


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch) -> Iterator[None]:
    """No plug-in is loaded; edited modules are not read from bytecode of the same second."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget()
    yield
    forget()
