import importlib.util
import platform
import subprocess
import sys
from collections import Counter

import pytest

import raypipe.datasets.pydoc as module
from raypipe.config import ConfigError
from raypipe.datasets.docstore import write_docs
from raypipe.datasets.docstrings import Entry, cut, scan
from raypipe.datasets.ir import open_dataset
from raypipe.datasets.pydoc import PACKAGES, SPLITS, PyDoc, locate, split_of
from raypipe.datasets.queries import select_queries

BODY = "The rest says what the summary left out, at a length that is worth a document of its own, "


def doc(summary, body):
    return f'"""{summary}\n\n    {body}\n    """'


def body(text):
    return f"{BODY}and then {text}."


@pytest.fixture
def tree(tmp_path):
    """A package whose import would fail, with one of everything that is to be left out."""
    files = {
        "fake/__init__.py": doc("The package's own summary line.", body("init"))
        + "\nraise RuntimeError('imported')\n",
        "fake/b.py": f"""
class Reader:
    {doc("Reads one thing after another.", body("reader"))}
    if True:
        def read(self):
            {doc("Read one thing, wrapped over" + chr(10) + "    two source lines.", body("read"))}
            def inner():
                {doc("This one is inside a function.", body("inner"))}
    def _hidden(self):
        {doc("This one is private by name.", body("hidden"))}
    @property
    def size(self):
        {doc("How many things there are.", body("size"))}
    @size.setter
    def size(self, value):
        {doc("Set how many things there are.", body("setter"))}
    async def wait(self):
        {doc("Wait until a thing is there.", body("wait"))}
try:
    pass
except ImportError:
    def fallback():
        {doc("Used when the import fails.", body("fallback"))}
""",
        "fake/c.py": f"""
def same_summary():
    {doc("READS one thing   after another.", body("another text"))}
def same_body():
    {doc("A different summary, equal rest.", body("READER"))}
def no_rest():
    '''Only a summary line is here.'''
def short_rest():
    {doc("The rest is too short here.", "See above.")}
def short_summary():
    {doc("Too few words.", body("short"))}
""",
        "fake/_private.py": doc("A module with a private name.", body("private")),
        "fake/broken.py": "def f(:\n",
        "fake/null.py": "x = 1\0",
        "fake/test_b.py": doc("A test module is left out.", body("test module")),
        "fake/tests/x.py": doc("A test folder is left out.", body("test folder")),
        "fake/_vendor/x.py": doc("A vendored copy is left out.", body("vendored")),
        "fake/not-a-module.py": doc("A script is left out here.", body("script")),
        "fake/a/deep.py": doc("A module further down here.", body("deep") + r" \d"),
        "one.py": doc("A package that is one file.", body("one")),
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


NAMES = [
    "fake",
    "fake.b.Reader",
    "fake.b.Reader.read",
    "fake.b.Reader.size",
    "fake.b.Reader.wait",
    "fake.b.fallback",
    "fake.a.deep",
    "one",
]


def test_scan_keeps_public_documented_names_in_order(tree):
    entries, counts = scan([("fake", tree / "fake"), ("one", tree / "one.py")])
    assert [entry.name for entry in entries] == NAMES
    assert entries[2].summary == "Read one thing, wrapped over two source lines."
    assert entries[2].body == body("read")
    assert counts == {
        "docstrings": 14,
        "unreadable_files": 2,
        "unsuitable": 3,
        "duplicate_names": 1,
        "duplicate_summaries": 1,
        "duplicate_bodies": 1,
    }


def test_the_first_of_equals_stays_whatever_comes_first(tree):
    entries, _ = scan([("x", tree / "fake" / "c.py"), ("fake", tree / "fake")])
    names = [entry.name for entry in entries]
    assert names[:2] == ["x.same_summary", "x.same_body"]
    assert "fake.b.Reader" not in names and "fake.b.Reader.read" in names


def test_standard_library_modules_have_no_prefix(tree):
    entries, _ = scan([("stdlib", tree / "fake" / "a")])
    assert [entry.name for entry in entries] == ["deep"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Four words are enough.\n\n" + "x" * 100, ("Four words are enough.", "x" * 100)),
        ("Four words are enough.\n\n" + "x" * 99, None),
        ("Three wordsareenough here.\n\n" + "x" * 100, None),
        ("a b c d e f g h i j\n\n" + "x" * 100, None),
        ("a b c d e f g h i jk\n\n" + "x" * 100, ("a b c d e f g h i jk", "x" * 100)),
        ("word " * 81 + "\n\n" + "x" * 100, None),
        ("Half a pair \ud800 is here.\n\n" + "x" * 100, ("Half a pair ? is here.", "x" * 100)),
    ],
)
def test_bounds_of_summary_and_body(text, expected):
    assert cut("n", text) == (expected and Entry("n", *expected))


def test_near_copies_share_a_split_and_shares_are_as_stated():
    start = "x" * 200
    for number in range(50):
        a, b = f"{number} {start}", f"{number} {start.upper()} and another end {number}"
        assert split_of(a) == split_of(b)
    shares = Counter(split_of(f"text {number}") for number in range(4000))
    for name, share in SPLITS.items():
        assert abs(shares[name] / 4000 - share) < 0.03  # four standard errors of .7
    assert sum(SPLITS.values()) == pytest.approx(1)


@pytest.fixture(scope="module")
def three():
    """The splits of three packages, which share one scan."""
    return [PyDoc(split, ["email", "json", "bm25s"]) for split in SPLITS]


def test_splits_share_the_documents_and_part_the_queries(three, tmp_path):
    docs = [list(data.docs()) for data in three]
    assert docs[0] == docs[1] == docs[2]
    names = [doc_id for doc_id, _ in docs[0]]
    assert len(set(names)) == len(names) > 100
    packages = list(dict.fromkeys(name.split(".")[0] for name in names))
    assert packages == ["email", "json", "bm25s"]
    assert all(text.startswith(f"{doc_id} ") for doc_id, text in docs[0])
    queries = [query_id for data in three for query_id, _ in data.queries()]
    assert sorted(queries) == sorted(f"q:{name}" for name in names)
    for data in three:
        assert list(data.qrels()) == [(i, i.removeprefix("q:"), 1) for i, _ in data.queries()]
        assert select_queries(data).counts["queries_without_qrels"] == 0
    counts = write_docs(three[0], tmp_path / "docs.arrow")
    assert counts["docs"] == len(names) and counts["empty_docs"] == 0
    assert counts["docstrings"] > counts["unsuitable"] > 0


def test_the_summary_is_not_in_its_document(three):
    texts = dict(three[0].docs())
    query = dict(three[0].queries()) | dict(three[1].queries()) | dict(three[2].queries())
    assert query["q:json.dump"].startswith("Serialize ``obj`` as a JSON formatted stream to ``fp``")
    assert "Serialize" not in texts["json.dump"] and "skipkeys" in texts["json.dump"]


def test_the_scan_runs_once_and_identity_never(three, monkeypatch):
    calls = []
    monkeypatch.setattr(module, "scan", lambda roots: calls.append(roots) or ([], {}))
    data = PyDoc("test", ["json"])
    data.check()
    data.identity()
    assert calls == []
    for read in (data.docs, data.queries, data.qrels, data.docs):
        assert list(read()) == []
    data.counts()
    assert len(calls) == 1


def test_identity_is_versions():
    import bm25s

    test, train = PyDoc("test", ["json", "bm25s"]), PyDoc("train", ["json", "bm25s"])
    assert test.docs_identity() == train.docs_identity()
    assert test.docs_identity()["python"] == platform.python_version()
    assert test.docs_identity()["versions"] == [["bm25s", f"bm25s=={bm25s.__version__}"]]
    assert test.identity() == {**test.docs_identity(), "split": "test"} != train.identity()
    assert test.docs_identity() != PyDoc("test", ["bm25s", "json"]).docs_identity()
    assert (test.name, test.docs_name) == ("pydoc-json-bm25s-test", "pydoc-json-bm25s")


def test_the_built_in_list_is_installed_here():
    PyDoc("test").check()
    assert len(set(PACKAGES)) == len(PACKAGES)


def test_errors(tree, monkeypatch):
    with pytest.raises(ConfigError, match="dataset pydoc needs a split; valid: test, train, valid"):
        open_dataset("pydoc")
    with pytest.raises(ConfigError, match=r"has no split 'tset'; did you mean 'test'\?"):
        open_dataset("pydoc", "tset")
    with pytest.raises(ConfigError, match=r"no package 'bm25z' is installed; .* 'bm25s'\?"):
        open_dataset("pydoc:json,bm25z", "test").check()
    with pytest.raises(ConfigError, match=r"no package 'a\.b' is installed"):
        locate("a.b")
    with pytest.raises(ConfigError, match="expected Python sources of 'Stemmer', found none"):
        open_dataset("pydoc:Stemmer", "test").check()
    monkeypatch.syspath_prepend(tree)
    assert locate("fake") == [tree / "fake"] and locate("one") == [tree / "one.py"]


@pytest.fixture
def site(tree, monkeypatch):
    """A folder on the path; what is installed there is forgotten with the test."""

    def forget() -> None:
        for known in (module._owners, module._version, module.installed):
            known.cache_clear()

    forget()
    monkeypatch.syspath_prepend(tree)
    yield tree
    forget()


def distribution(site, package, source: str | None) -> None:
    """Metadata as pip writes it: of a copy, or of an editable install."""
    folder = site / f"{package}-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (folder / "top_level.txt").write_text(package)
    (folder / "RECORD").write_text("")
    if source is not None:
        (folder / "direct_url.json").write_text(source)


EDITABLE = '{"url": "file:///src", "dir_info": {"editable": true}}'


@pytest.mark.parametrize("install", ["editable", "on the path", "beside its metadata"])
def test_sources_that_change_under_one_version_count_with_their_content(install, site, monkeypatch):
    if install == "editable":
        distribution(site / "x" / "site-packages", "fake", EDITABLE)
        monkeypatch.syspath_prepend(site / "x" / "site-packages")
    elif install == "beside its metadata":
        distribution(site, "fake", EDITABLE)
    data = PyDoc("test", ["fake"])
    before, docs = data.docs_identity(), dict(data.docs())
    assert before["versions"][0][1].startswith("content ")
    (site / "fake" / "_private.py").write_text("no scan reads this")
    assert data.docs_identity() == before
    source = site / "fake" / "b.py"
    source.write_text(source.read_text().replace("what the summary left", "what is left"))
    assert data.docs_identity() != before and dict(data.docs()) != docs


def test_a_copy_that_pip_installed_counts_with_its_version(site):
    distribution(site, "fake", None)
    assert PyDoc("test", ["fake"]).docs_identity()["versions"] == [["fake", "fake==1.0"]]


def test_a_package_that_only_an_editable_installs_finder_finds(tree, monkeypatch):
    class EditableFinder:
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            if name == "fake":
                place = tree / "fake"
                return importlib.util.spec_from_file_location(
                    name, place / "__init__.py", submodule_search_locations=[str(place)]
                )
            return None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, EditableFinder])
    assert locate("fake") == [tree / "fake"]
    with pytest.raises(ConfigError, match="no package 'fakes' is installed"):
        locate("fakes")


def test_nothing_is_imported():
    code = (
        "import sys; from raypipe.datasets.pydoc import PyDoc;"
        "d = PyDoc('test', ['bm25s', 'turtledemo']); d.identity(); list(d.docs());"
        "print([m for m in ('bm25s', 'numba', 'turtledemo', 'ray') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert importlib.util.find_spec("bm25s") is not None


def test_every_installed_package():
    data = PyDoc("test", ["installed"])
    assert data.docs_name == "pydoc-installed"
    assert {"stdlib", "numpy", "pytest"} <= set(data.packages)
    assert len(set(data.packages)) == len(data.packages)
    assert all(locate(package) for package in data.packages)  # none is found and then refused
    data.check()


def test_a_module_that_replaced_itself_is_found(monkeypatch):
    odd = type(sys)("numpy")
    odd.__spec__ = None
    monkeypatch.setitem(sys.modules, "numpy", odd)
    assert [path.name for path in locate("numpy")] == ["numpy"]
