import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raypipe.config import ConfigError
from raypipe.datasets.docstore import write_docs
from raypipe.datasets.ir import _AUTHORS, IrDataset, _with_and, bibliography, open_dataset
from raypipe.datasets.queries import select_queries
from raypipe.tables.text_table import TextTable

SHARED = Path(__file__).resolve().parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared")


def test_unknown_ids_suggest_the_nearest():
    with pytest.raises(ConfigError, match=r"no dataset 'beir/scifakt/test'; did you mean 'beir/"):
        open_dataset("beir/scifakt/test")
    with pytest.raises(ConfigError, match=r"no dataset 'zzzzqqqq'; the ids are at https://ir-data"):
        open_dataset("zzzzqqqq")


def test_a_split_belongs_to_the_id():
    with pytest.raises(ConfigError, match=r"as in beir/scifact/test; leave the split out"):
        open_dataset("beir/scifact", "test")


def test_missing_parts_name_the_ids_that_have_them():
    data = open_dataset("beir/scifact")
    data.check(queries=False)
    expected = "has no qrels; ids with qrels below it: beir/scifact/test, beir/scifact/train$"
    with pytest.raises(ConfigError, match=expected):
        data.check()
    with pytest.raises(ConfigError, match=r"has no qrels; ids with qrels below .* and \d+ more"):
        next(open_dataset("msmarco-passage").qrels())
    with pytest.raises(ConfigError, match="has no qrels; no id below it has them either"):
        open_dataset("clueweb09/ar").check()


def test_records_without_text_are_refused():
    with pytest.raises(ConfigError, match=r"expected docs with a field 'text', found doc_id, repo"):
        open_dataset("codesearchnet").check(queries=False)


def test_names_and_identity_of_ir_datasets():
    import ir_datasets

    data = open_dataset("beir/scifact/test")
    assert isinstance(data, IrDataset)
    data.check()
    assert (data.name, data.docs_name) == ("beir-scifact-test", "beir-scifact")
    assert data.docs_count() == 5183
    library = {"ir_datasets": ir_datasets.__version__, "docs": "beir/scifact"}
    assert data.docs_identity() == open_dataset("beir/scifact/train").docs_identity() == library
    assert data.identity() == {**library, "dataset": "beir/scifact/test"}


@pytest.mark.parametrize(
    ("name", "unspaced"), [("mmarco/zh", True), ("miracl/ja/dev", True), ("beir/scifact", False)]
)
def test_the_library_knows_which_script_has_no_spaces(name, unspaced):
    assert open_dataset(name).unspaced == unspaced


def test_opening_pydoc():
    assert open_dataset("pydoc", "test").name == "pydoc-test"
    assert open_dataset("pydoc:json, email", "train").packages == ("json", "email")
    with pytest.raises(ConfigError, match="expected package names, as in pydoc:json,numpy"):
        open_dataset("pydoc:", "train")


def test_importing_the_module_leaves_ir_datasets_and_ray_alone():
    code = (
        "import sys, raypipe.datasets.ir;"
        "print({'ir_datasets', 'ray', 'torch', 'raypipe.storage.artifacts'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


@needs_shared
def test_msmarco_dl_has_the_published_counts(tmp_path):
    data = open_dataset(f"beir:{SHARED / 'data' / 'msmarco-dl'}", "dl19")
    counts = write_docs(data, tmp_path / "docs.arrow")
    assert counts == {"docs": 28354, "empty_docs": 0, "duplicate_docs": 0}
    assert len(TextTable(tmp_path / "docs.arrow")) == 28354
    dl19 = select_queries(data, None, positive_relevance=2, require_positive=False)
    dl20 = select_queries(
        open_dataset(f"beir:{SHARED / 'data' / 'msmarco-dl'}", "dl20"), None, require_positive=False
    )
    assert (dl19.counts["queries"], dl20.counts["queries"]) == (43, 54)
    both = [set(part.queries["query_id"].to_pylist()) for part in (dl19, dl20)]
    assert not both[0] & both[1]
    assert set(dl19.qrels["relevance"].to_pylist()) == {0, 1, 2, 3}


REAL = """
import json, sys
from raypipe.datasets.ir import open_dataset
from raypipe.tables.text_table import TextTable
from raypipe.datasets.queries import select_queries
from raypipe.datasets.docstore import write_docs
out = {}
for name in ("beir/scifact/train", "beir/scifact/test", "vaswani", "cranfield"):
    data = open_dataset(name)
    data.check()
    chosen = select_queries(data, None)
    out[name] = [chosen.counts["queries"]]
    if not name.endswith("train"):
        counts = write_docs(data, sys.argv[1])
        table = TextTable(sys.argv[1])
        out[name] += [data.docs_count(), counts["docs"], counts["empty_docs"], table.text(0)[:40]]
print(json.dumps(out))
"""


@needs_shared
def test_ir_datasets_offline(tmp_path_factory):
    home = tmp_path_factory.mktemp("home") / "ir"
    shutil.copytree(SHARED / "ir_home", home, copy_function=shutil.copyfile)
    # ir_datasets reads the variable when it is imported, so this needs a process of its own.
    out = subprocess.run(
        [sys.executable, "-c", REAL, str(home.parent / "docs.arrow")],
        env={**os.environ, "IR_DATASETS_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(out.stdout)
    assert found["beir/scifact/train"] == [809]
    assert found["beir/scifact/test"][:4] == [300, 5183, 5183, 0]
    assert found["beir/scifact/test"][4].startswith("Microstructural development of human")
    assert found["vaswani"][:4] == [93, 11429, 11429, 0]
    assert found["vaswani"][4].startswith("compact memories have flexible capacit")
    # two of Cranfield's 1400 documents have neither title nor text
    assert found["cranfield"][:4] == [225, 1400, 1398, 2]


def test_authors_of_its_bibliography_are_ones_that_bibtex_reads():
    """Several works there have commas between all of their authors."""
    works = bibliography("msmarco-passage/dev")
    entry = next(text for key, text in works.items() if "Bajaj" in key)
    assert "Payal Bajaj and Daniel Campos and Nick Craswell" in entry
    usual = "author = {Lastname, First and Other, Second},"
    assert _AUTHORS.sub(_with_and, usual) == usual
