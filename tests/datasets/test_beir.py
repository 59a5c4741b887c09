import gzip
import json

import pytest

from raypipe.config import ConfigError
from raypipe.datasets.docstore import write_docs
from raypipe.datasets.ir import open_dataset
from raypipe.storage import files

DOCS = [
    {"_id": "d1", "title": "Cats", "text": " purr. "},
    {"_id": "d2", "title": "", "text": "Dogs bark."},
    {"_id": "d3", "text": None},
]
QUERIES = [{"_id": "q1", "text": " what purrs "}, {"_id": "q2", "text": "what barks"}]
QRELS = {"train": [("q2", "d2", 2), ("q2", "d1", -1)], "test": [("q1", "d1", 1)]}


def jsonl(path, rows, compress=False):
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if compress else text)


def tsv(path, rows):
    path.parent.mkdir(exist_ok=True)
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "mini set"
    root.mkdir()
    jsonl(root / "corpus.jsonl", DOCS)
    jsonl(root / "queries.jsonl", QUERIES)
    for split, rows in QRELS.items():
        tsv(root / "qrels" / f"{split}.tsv", rows)
    return root


@pytest.mark.parametrize("compress", [False, True])
def test_reads_a_folder_plain_or_compressed(folder, compress):
    if compress:
        for stem, rows in (("corpus", DOCS), ("queries", QUERIES)):
            (folder / f"{stem}.jsonl").unlink()
            jsonl(folder / f"{stem}.jsonl.gz", rows, compress=True)
    data = open_dataset(f"beir:{folder}", "train")
    data.check()
    assert list(data.docs()) == [("d1", "Cats purr."), ("d2", "Dogs bark."), ("d3", "")]
    assert list(data.queries()) == [("q2", "what barks")]
    assert list(data.qrels()) == [("q2", "d2", 2), ("q2", "d1", -1)]
    assert (data.docs_name, data.name) == ("mini-set", "mini-set-train")
    assert data.docs_count() is None and data.counts() == {}


def test_identity_follows_content_not_place(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYPIPE_HOME", str(tmp_path / "home"))
    train, test = (open_dataset(f"beir:{folder}", split) for split in ("train", "test"))
    assert train.docs_identity() == test.docs_identity()
    assert train.identity() != test.identity()
    moved = folder.rename(folder.with_name("other"))
    again = open_dataset(f"beir:{moved}", "train")
    assert again.identity() == train_identity(moved)
    before = again.docs_identity()
    jsonl(moved / "corpus.jsonl", [*DOCS, {"_id": "d4", "text": "new"}])
    assert again.docs_identity() != before
    assert json.loads(json.dumps(before)) == before


def train_identity(folder):
    from raypipe.storage.files import file_checksum

    return {
        "source": "beir",
        "corpus": file_checksum(folder / "corpus.jsonl"),
        "queries": file_checksum(folder / "queries.jsonl"),
        "qrels": file_checksum(folder / "qrels" / "train.tsv"),
    }


def test_split_errors_list_the_splits(folder):
    with pytest.raises(ConfigError, match=r"needs a split; valid: test, train$"):
        open_dataset(f"beir:{folder}")
    with pytest.raises(ConfigError, match=r"no split 'trian'; did you mean 'train'\?$"):
        open_dataset(f"beir:{folder}", "trian").check()
    open_dataset(f"beir:{folder}", "trian").check(queries=False)
    for path in (folder / "qrels").iterdir():
        path.unlink()
    with pytest.raises(ConfigError, match="no split 'train'; there is no qrels file at all"):
        open_dataset(f"beir:{folder}", "train").check()


def test_a_folder_in_the_place_of_qrels_is_no_split(folder):
    (folder / "qrels" / "train.tsv").unlink()
    (folder / "qrels" / "train.tsv").mkdir()
    with pytest.raises(ConfigError, match=r"no split 'train'; valid: test$"):
        open_dataset(f"beir:{folder}", "train").check()


def test_errors_of_the_path(folder):
    with pytest.raises(ConfigError, match=r"expected an absolute path .* beir:/.*/sub/x$"):
        open_dataset("beir:sub/x", "train")
    near = folder.with_name("mini st")
    with pytest.raises(ConfigError, match=r"no folder at .*mini st; did you mean 'mini set'\?"):
        open_dataset(f"beir:{near}", "train").check()
    with pytest.raises(ConfigError, match=r"no folder at /nowhere/at/all; check the path, noth"):
        open_dataset("beir:/nowhere/at/all")
    (folder / "queries.jsonl").unlink()
    data = open_dataset(f"beir:{folder}", "train")
    data.check(queries=False)
    with pytest.raises(ConfigError, match=r"expected queries\.jsonl or .*found neither; check"):
        data.check()
    jsonl(folder / "querys.jsonl", QUERIES)
    with pytest.raises(ConfigError, match=r"neither; did you mean 'querys\.jsonl'\?; add the file"):
        data.check()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"_id": "x", "text": ', r"corpus\.jsonl:3: expected one JSON object per line, found '"),
        (b"[" * 100_000, r"corpus\.jsonl:3: expected one JSON object per line, found '\[\["),
        (b'["x"]', r"corpus\.jsonl:3: expected a JSON object, found \['x'\]"),
        (
            b'{"id": "x", "text": "t"}',
            r'corpus\.jsonl:3: expected text or a whole number as "_id", f',
        ),
        (b'{"_id": 7.0, "text": "t"}', r'corpus\.jsonl:3: expected text or a whole .*"_id", found'),
        (
            b'{"_id": true, "text": "t"}',
            r'corpus\.jsonl:3: expected text or a whole .*"_id", found',
        ),
        (
            b'{"_id": null, "text": "t"}',
            r'corpus\.jsonl:3: expected text or a whole .*"_id", found',
        ),
        (b'{"_id": "x"}', r'corpus\.jsonl:3: expected strings under "text"'),
        (b'{"_id": "x", "text": "t", "title": 3}', r'corpus\.jsonl:3: .*"title"'),
        (b'{"_id": "x", "text": "caf\xe9"}', r"corpus\.jsonl:3: expected UTF-8, found b'\\xe9'"),
        (b'{"_id": "x", "text": "\\ud83d"}', r"corpus\.jsonl:3: expected text without half"),
        (b'{"_id": "x", "text": "t", "_id": "y"}', r"corpus\.jsonl:3: .*the key '_id' twice"),
        (b'{"_id": "x", "n": ' + b"9" * 10_000 + b"}", r"jsonl:3: .*a number of thousands of dig"),
    ],
)
def test_a_wrong_line_is_named(folder, line, message):
    good = b'{"_id": "a", "text": "\\ud83d\\ude00 smile"}\n\n'  # a whole pair, then a blank line
    (folder / "corpus.jsonl").write_bytes(good + line + b"\n")
    rows = open_dataset(f"beir:{folder}", "train").docs()
    assert next(rows) == ("a", "\U0001f600 smile")
    with pytest.raises(ConfigError, match=message):
        list(rows)


def test_a_byte_order_mark_is_no_text(folder):
    path = folder / "corpus.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert next(open_dataset(f"beir:{folder}", "train").docs())[0] == "d1"


def test_a_truncated_or_false_gzip_file_is_named(folder):
    (folder / "corpus.jsonl").unlink()
    path = folder / "corpus.jsonl.gz"
    rows = [{"_id": str(i), "text": f"text {i * 7919}"} for i in range(2000)]
    jsonl(path, rows, compress=True)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ConfigError, match=r"corpus\.jsonl\.gz: the gzip data is damaged after"):
        list(open_dataset(f"beir:{folder}", "train").docs())
    path.write_bytes(b"\x1f\x8bno")
    with pytest.raises(ConfigError, match=r"damaged after line 0 .*copy the file again"):
        list(open_dataset(f"beir:{folder}", "train").docs())
    jsonl(path, rows)  # a file is packed if its bytes are, whatever its name
    assert len(list(open_dataset(f"beir:{folder}", "train").docs())) == 2000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1\td1\t1\n", r"train\.tsv:1: expected the header \['query-id', 'corpus-id', 'score'\]"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t1.5\n", r"train\.tsv:2: expected a whole.*'1\.5'"),
        ("query-id\tcorpus-id\tscore\nq1\td1\tnan\n", r"train\.tsv:2: expected a whole.*'nan'"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t.inf\n", r"train\.tsv:2: expected a whole.*'\.inf'"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t3e9.\n", r"train\.tsv:2: expected a whole"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t3000000000.0\n", r"train\.tsv:2: .*within 32 bits"),
        ("query-id\tcorpus-id\tscore\nq1 d1 1\n", r"train\.tsv:2: expected three tab-separated"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t3000000000\n", r"train\.tsv:2: .*within 32 bits"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t٣\n", r"train\.tsv:2: expected a.* found '٣'"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t1_0\n", r"train\.tsv:2: expected a.* found '1_0'"),
        (f"query-id\tcorpus-id\tscore\nq1\td1\t{'9' * 10_000}\n", r"train\.tsv:2: expected .*'999"),
    ],
)
def test_wrong_qrels_are_named(folder, text, message):
    (folder / "qrels" / "train.tsv").write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        list(open_dataset(f"beir:{folder}", "train").qrels())
    assert len(str(error.value)) < 400  # however long the field is


@pytest.mark.parametrize("stem", ["corpus", "queries"])
def test_a_file_beside_its_packed_form_is_refused(folder, stem):
    """Either may be the newer one."""
    plain, packed = folder / f"{stem}.jsonl", folder / f"{stem}.jsonl.gz"
    data = open_dataset(f"beir:{folder}", "train")
    data.check()
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(ConfigError, match=rf"expected one of {stem}\.jsonl and .*, found both"):
        open_dataset(f"beir:{folder}", "train").check()
    data.check()  # a job that runs goes on with the file that it began with


@pytest.mark.parametrize("mark", ["\\u0000", "\\u001b[31m", "\\u2028"])
def test_an_id_with_control_characters_is_named_with_its_line(folder, mark, tmp_path):
    lines = ['{"_id": "d1", "text": "t"}', f'{{"_id": "d{mark}2", "text": "t"}}']
    (folder / "corpus.jsonl").write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"corpus\.jsonl:2: expected an? .*without .*rename it"):
        write_docs(open_dataset(f"beir:{folder}", "train"), tmp_path / "docs.arrow")


def test_an_id_of_a_megabyte_is_named_and_not_shown_whole(folder, tmp_path):
    jsonl(folder / "corpus.jsonl", [*DOCS, {"_id": "x" * 1_000_000, "text": "t"}])
    with pytest.raises(ConfigError, match=r"corpus\.jsonl:4: expected an id of at most") as error:
        write_docs(open_dataset(f"beir:{folder}", "train"), tmp_path / "docs.arrow")
    assert len(str(error.value)) < 400


def test_a_packed_line_of_gigabytes_ends_the_reading(folder, monkeypatch):
    """A few kilobytes of gzip unpack to them; only the limit is read."""
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    bomb = gzip.compress(b'{"_id": "x", "text": "' + b"a" * 10_000_000)
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "a", "text": "t"}\n') + bomb)
    rows = open_dataset(f"beir:{folder}", "train").docs()
    assert next(rows) == ("a", "t")
    with pytest.raises(ConfigError, match=r"jsonl\.gz, line 2: expected a line of at most 1,000 b"):
        next(rows)


@pytest.mark.parametrize("value", ["2.0", "2.", "+2", "02", "2.000"])
def test_a_whole_number_with_a_point_is_a_relevance(folder, value):
    """As pandas writes a column of integers that once had a gap."""
    tsv(folder / "qrels" / "train.tsv", [("q2", "d2", value), ("q2", "d1", "-1.0")])
    rows = list(open_dataset(f"beir:{folder}", "train").qrels())
    assert rows == [("q2", "d2", 2), ("q2", "d1", -1)]
    assert [type(relevance) for _, _, relevance in rows] == [int, int]


def test_ids_may_be_whole_numbers(folder, tmp_path):
    jsonl(folder / "corpus.jsonl", [{"_id": 7, "text": "seven"}, {"_id": "08", "text": "eight"}])
    jsonl(folder / "queries.jsonl", [{"_id": 10**20, "text": "which"}])
    tsv(folder / "qrels" / "train.tsv", [(10**20, 7, 1)])
    data = open_dataset(f"beir:{folder}", "train")
    assert list(data.docs()) == [("7", "seven"), ("08", "eight")]
    assert list(data.queries()) == [(str(10**20), "which")]
    assert data.place_of("document", "7").endswith("corpus.jsonl:1")


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_packed_files_marks_and_ends_of_lines_change_nothing(folder, ends, mark, packed):
    before = open_dataset(f"beir:{folder}", "train")
    expected = [list(before.docs()), list(before.queries()), list(before.qrels())]
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/train.tsv"):
        path = folder / name
        data = (mark + path.read_text().replace("\n", ends)).encode()
        path.unlink()
        (folder / f"{name}{packed}").write_bytes(gzip.compress(data) if packed else data)
    data = open_dataset(f"beir:{folder}", "train")
    data.check()
    assert data.splits() == ["test", "train"]
    assert [list(data.docs()), list(data.queries()), list(data.qrels())] == expected


def test_judgements_beside_their_packed_form_are_refused(folder):
    (folder / "qrels" / "train.tsv.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(ConfigError, match=r"expected one of qrels/train\.tsv and .*, found both"):
        open_dataset(f"beir:{folder}", "train").check()
