"""Which files a module loads, found without importing anything; and where a package is."""

from __future__ import annotations

import sys

import pytest
from own_packages import work_in, write

from raypipe.config import ConfigError
from raypipe.plugins.packages import code_of, find_package, import_from, modules_of

FILES = {
    "pack/__init__.py": "",
    "pack/a.py": "from pack import b\nfrom .deep import inner\n",
    "pack/b.py": "import numpy\ndef f():\n    import pack.c\n",
    "pack/c.py": "from .. import nothing\n",
    "pack/d.py": "import pack.a\n",
    "pack/deep/__init__.py": "from .other import *\n",
    "pack/deep/inner.py": "from ..b import f\n",
    "pack/deep/other.py": "",
    "pack/starred.py": "from pack.deep import *\n",
    "pack/deep/spare.py": "",
    "pack/computed.py": "import importlib\n",
    "pack/resources.py": "import importlib.resources\nfrom importlib.metadata import version\n",
    "pack/broken.py": "def\n",
}
DEEP = {"pack.deep", "pack.deep.other"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write(tmp_path, FILES)
    work_in(tmp_path, monkeypatch, "pack")
    return tmp_path


@pytest.mark.parametrize(
    ("module", "loads"),
    [
        ("pack.a", {"pack.a", "pack.b", "pack.c", "pack.deep.inner", *DEEP}),
        ("pack.b", {"pack.b", "pack.c"}),
        ("pack.d", {"pack.d", "pack.a", "pack.b", "pack.c", "pack.deep.inner", *DEEP}),
        ("pack.deep", DEEP),
        ("pack.starred", {"pack.starred", "pack.deep.inner", "pack.deep.spare", "pack.b", "pack.c"}
         | DEEP),
        ("pack.resources", {"pack.resources"}),
        ("pack.broken", {"pack.broken"}),
        ("pack", set()),
    ],
)  # fmt: skip
def test_imports_are_followed(folder, module, loads):
    assert modules_of(module, find_package("pack")).keys() == {"pack", *loads}
    assert "pack" not in sys.modules


def test_computed_names_load_the_whole_package(folder):
    every = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in FILES}
    assert modules_of("pack.computed", find_package("pack")).keys() == every


def test_a_single_module_is_a_package_too(tmp_path, monkeypatch):
    write(tmp_path, {"alone.py": "import json\n"})
    work_in(tmp_path, monkeypatch, "alone")
    assert modules_of("alone", find_package("alone")) == {"alone": tmp_path / "alone.py"}


def test_the_digest_is_that_of_bytes_not_of_places(tmp_path, monkeypatch):
    digests = set()
    for place in ("one", "two"):
        write(tmp_path / place, FILES)
        work_in(tmp_path / place, monkeypatch, "pack")
        digests.add(code_of("pack.a", find_package("pack")))
    assert len(digests) == 1


def test_two_places_with_other_content_are_an_error(tmp_path, monkeypatch):
    write(tmp_path / "installed", FILES)
    write(tmp_path / "here", FILES)
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    work_in(tmp_path / "here", monkeypatch, "pack")
    assert find_package("pack").origin == str(tmp_path / "here/pack/__init__.py")
    write(tmp_path / "here", {"pack/a.py": "x = 1\n"})
    work_in(tmp_path / "here", monkeypatch, "pack")
    with pytest.raises(ConfigError, match=r"is in two places with different content, .*/here/pack"):
        find_package("pack")


def test_a_folder_of_data_with_the_name_of_a_package_hides_nothing(tmp_path, monkeypatch):
    write(tmp_path / "installed", FILES)
    write(tmp_path / "here", {"pack/data.txt": ""})
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    work_in(tmp_path / "here", monkeypatch, "pack")
    assert find_package("pack").origin == str(tmp_path / "installed/pack/__init__.py")


def test_only_the_package_becomes_importable(folder):
    write(folder, {"bystander.py": ""})
    import_from("pack", str(folder))
    import pack.b

    assert pack.b.__file__ == str(folder / "pack/b.py")
    with pytest.raises(ModuleNotFoundError):
        import bystander  # noqa: F401
