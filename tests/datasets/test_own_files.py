"""A collection in files of any place: what is read, and which line is wrong."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.config import ConfigError
from raypipe.datasets.ir import open_dataset
from raypipe.datasets.own_files import files_id
from raypipe.datasets.queries import select_queries
from raypipe.datasets.steps import QuerySet

DOCS = [("d1", "A title The first text"), ("d2", "Second")]
RECORDS = [
    {"_id": "d1", "title": "A title", "text": "The first text"},
    {"_id": "d2", "text": "Second"},
]


def write(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def opened(tmp_path: Path, corpus: Path, **other: Path):
    queries = other.pop("queries", None) or write(tmp_path / "q.tsv", "q1\twhat\nq2\twho\n")
    dataset = open_dataset(files_id(corpus=corpus, queries=queries, **other))
    dataset.check()
    return dataset


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.tsv", "d1\tA title\tThe first text\nd2\t\tSecond\n"),
        ("c.tsv", "d1\tA title The first text\nd2\tSecond\n"),
        ("c.tsv.gz", "d1\thttp://x\tA title\tThe first text\r\nd2\thttp://y\t\tSecond\r\n"),
        ("c.jsonl", "\n".join(map(json.dumps, RECORDS))),
        ("c.jsonl.gz", "\ufeff" + "\n\n".join(map(json.dumps, RECORDS))),
        (
            "c.jsonl",
            '{"id": "d1", "contents": "A title The first text"}\n{"docid": "d2", "body": "Second"}',
        ),
    ],
)
def test_what_people_have(tmp_path, name, text):
    dataset = opened(tmp_path, write(tmp_path / name, text))
    assert list(dataset.docs()) == DOCS
    assert list(dataset.queries()) == [("q1", "what"), ("q2", "who")]
    assert list(dataset.qrels()) == []


def test_a_line_of_names_is_no_text(tmp_path):
    corpus = write(tmp_path / "c.tsv", "docid\ttitle\tText\nd1\tone\ttwo\n")
    queries = write(tmp_path / "q.tsv", "qid\tquery\nq1\twhat\n")
    dataset = opened(tmp_path, corpus, queries=queries)
    assert list(dataset.docs()) == [("d1", "one two")]
    assert list(dataset.queries()) == [("q1", "what")]
    data = write(tmp_path / "d.tsv", "id\tsome words that are none\n")
    assert list(opened(tmp_path, data).docs()) == [("id", "some words that are none")]


def test_judgements_choose_the_queries(tmp_path):
    corpus = write(tmp_path / "c.tsv", "d1\tone\n")
    qrels = write(tmp_path / "qrels.txt", "q2 0 d1 1\n")
    dataset = opened(tmp_path, corpus, qrels=qrels)
    chosen = select_queries(dataset)
    assert chosen.queries["query_id"].to_pylist() == ["q2"]
    assert chosen.counts["queries_without_qrels"] == 1
    everything = select_queries(dataset, keep_unjudged=True).queries["query_id"].to_pylist()
    assert sorted(everything) == ["q1", "q2"]


def test_content_decides_the_identity(tmp_path):
    one = write(tmp_path / "c.tsv", "d1\tone\n")
    (tmp_path / "other").mkdir()
    same = write(tmp_path / "other" / "renamed.tsv", "d1\tone\n")
    assert opened(tmp_path, one).identity() == opened(tmp_path, same).identity()
    assert opened(tmp_path, write(tmp_path / "c2.tsv", "d1\ttwo\n")).identity() != (
        opened(tmp_path, one).identity()
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.tsv", "d1\tone\nd2 two\n", r"c\.tsv:2: expected 2 to 4 tab-separated columns"),
        ("c.jsonl", '{"text": "one"}', r"c\.jsonl:1: expected an id under"),
        ("c.jsonl", '{"id": "d1", "words": "one"}', r"c\.jsonl:1: expected text under"),
        ("c.jsonl", '{"id": "d1"', r"c\.jsonl:1: expected one JSON object"),
        ("c.jsonl", "[1]", r"c\.jsonl:1: expected a JSON object"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, name, text, words):
    with pytest.raises(ConfigError, match=words):
        list(opened(tmp_path, write(tmp_path / name, text)).docs())


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        ("files:corpus=/c.tsv", "name queries=FILE too"),
        ("files:corps=/c.tsv", "did you mean 'corpus'"),
        ("files:corpus=c.tsv,queries=/q.tsv", "absolute paths"),
        ("files:corpus=/none/c.tsv,queries=/q.tsv", "no file there"),
    ],
)
def test_an_id_that_names_no_files(dataset, words):
    with pytest.raises(ConfigError, match=words):
        QuerySet(dataset=dataset).open().check()


def test_files_have_no_split():
    with pytest.raises(ConfigError, match="files have no split 'test'"):
        QuerySet(dataset="files:corpus=/c.tsv,queries=/q.tsv", split="test").open()


# --- tables, TREC, MS MARCO ----------------------------------------------------------------------

PRODUCTS = [
    {"sku": "p1", "title": "Lamp", "brand": "Lux", "body": 'bright, "warm"\nlight', "price": 3},
    {"sku": "p2", "title": "Chair", "brand": None, "body": "oak", "price": 12},
]
MADE = [("p1", 'Lamp | Lux | bright, "warm"\nlight'), ("p2", "Chair |  | oak")]
TEMPLATE = "{title} | {brand} | {body}"


def table_of(path: Path, rows: list[dict]) -> Path:
    """The rows in the format that the name tells."""
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    if ending == "csv":
        import csv
        import io

        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0], lineterminator="\r\n")
        writer.writeheader()
        writer.writerows(rows)
        return write(path, "\ufeff" + text.getvalue())
    if ending == "jsonl":
        return write(path, "".join(json.dumps(row) + "\n" for row in rows))
    if ending == "json":
        return write(path, json.dumps(rows, indent=1))
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    path.mkdir()  # as save_to_disk writes it
    for number, row in enumerate(rows):
        name = f"data-{number:05}-of-{len(rows):05}.arrow"
        part = pa.Table.from_pylist([row], schema=pa.Table.from_pylist(rows).schema)
        with pa.ipc.new_stream(str(path / name), part.schema) as out:
            out.write_table(part)
    names = [{"filename": f"data-{n:05}-of-{len(rows):05}.arrow"} for n in range(len(rows))]
    (path / "state.json").write_text(json.dumps({"_data_files": names}))
    (path / "dataset_info.json").write_text("{}")
    return path


@pytest.mark.parametrize(
    "name", ["p.csv", "p.csv.gz", "p.jsonl", "p.jsonl.gz", "p.json", "p.parquet", "saved"]
)
def test_columns_become_texts(tmp_path, name):
    corpus = table_of(tmp_path / name, PRODUCTS)
    queries = table_of(tmp_path / "q.csv", [{"nr": 7, "words": "lamp"}])
    qrels = table_of(tmp_path / "j.csv", [{"nr": 7, "sku": "p1", "grade": 2}])
    mapping = {"corpus": str(corpus), "queries": str(queries), "qrels": str(qrels)}
    mapping |= {"text": TEMPLATE, "query": "words", "doc_id": "sku", "query_id": "nr"}
    data = QuerySet(dataset=mapping)
    assert data == QuerySet(dataset=data.dataset)  # one line says the same
    assert data.text_template == TEMPLATE
    dataset = data.open()
    dataset.check()
    assert list(dataset.docs()) == MADE
    assert list(dataset.queries()) == [("7", "lamp")]
    assert list(dataset.qrels()) == [("7", "p1", 2)]
    other = QuerySet(dataset={**mapping, "text": "{title}"}).open()
    assert other.docs_identity() != dataset.docs_identity()


def test_parts_of_one_table(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, row in enumerate(PRODUCTS):
        table_of(folder / f"train-{number:05}-of-00002.parquet", [row])
    named = {"text": "{title}", "doc_id": "sku"}
    assert list(opened(tmp_path, folder, **named).docs()) == [("p1", "Lamp"), ("p2", "Chair")]
    table_of(folder / "test-00000-of-00001.parquet", PRODUCTS)
    with pytest.raises(
        ConfigError, match=r"found those of test, train; name some, as in .*test-\*"
    ):
        opened(tmp_path, folder, **named)
    some = opened(tmp_path, folder / "train-*", **named)
    assert [doc_id for doc_id, _ in some.docs()] == ["p1", "p2"]
    (folder / "dataset_dict.json").write_text("{}")
    (folder / "train").mkdir()
    with pytest.raises(ConfigError, match="expected one split, found a folder of train"):
        opened(tmp_path, folder)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("c.csv", 'id,text\nd1,"one\n\ntwo"\nd2\n', r"c\.csv:5: expected 2 columns \(id, text\)"),
        ("c.csv", 'id,text\nd1,"one\n', r"c\.csv:2: expected CSV, in which quotes come in pairs"),
        ("c.csv", "sku,name,brand,price,x\n", r"c\.csv:1: expected 2 to 4 tab-separated columns"),
        ("c.tsv", "id\ttext\tid\n", r"c\.tsv:1: expected each column once"),
        ("c.jsonl", '{"id": 1.5, "text": "one"}', r"c\.jsonl:1: expected an id under"),
        ("c.parquet", "PAR1 cut off", r"c\.parquet: expected a table in parquet format, found one"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, name, text, words):
    with pytest.raises(ConfigError, match=words):
        list(opened(tmp_path, write(tmp_path / name, text)).docs())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("j.txt", "q2 0 d1 2\n"),
        ("j.tsv", "query-id\tcorpus-id\tscore\nq2\td1\t2\n"),
        ("j.tsv.gz", "relevance\tdoc_id\tquery_id\r\n2.0\td1\tq2\r\n"),
        ("j.csv", "qid,pid,label\nq2,d1,2\n"),
        ("j.jsonl", '{"query_id": "q2", "doc_id": "d1", "relevance": 2}\n'),
    ],
)
def test_judgements_of_every_kind(tmp_path, name, text):
    corpus = write(tmp_path / "c.tsv", "d1\tone\n")
    dataset = opened(tmp_path, corpus, qrels=write(tmp_path / name, text))
    assert list(dataset.qrels()) == [("q2", "d1", 2)]
    broken = write(tmp_path / name, re.sub(r"(?<!q)2(\.0)?", "x", text))
    with pytest.raises(ConfigError, match=r"a whole number as relevance|one JSON obj"):
        list(opened(tmp_path, corpus, qrels=broken).qrels())


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({"text": "{titel}"}, r"p\.csv:1: there is no column 'titel'; did you mean 'title'"),
        ({"doc_id": "skus"}, r"p\.csv:1: there is no column 'skus'; did you mean 'sku'"),
    ],
)
def test_a_column_that_is_not_there(tmp_path, mapping, words):
    corpus = table_of(tmp_path / "p.csv", PRODUCTS)
    with pytest.raises(ConfigError, match=words):
        list(opened(tmp_path, corpus, **{"text": "title", "doc_id": "sku", **mapping}).docs())


def test_a_part_that_does_not_exist():
    with pytest.raises(ValueError, match="no part 'corps' of a data set; did you mean 'corpus'"):
        QuerySet(dataset={"corps": "/c", "queries": "/q"})
    with pytest.raises(ValueError, match="corpus: expected text, found 3"):
        QuerySet(dataset={"corpus": 3, "queries": "/q"})


TREC_DOCS = """<DOC>
<DOCNO> FT-1 </DOCNO>
<HEADLINE>Bees &amp; honey</HEADLINE>
<TEXT>
<P>They fly.</P>
<P>They sting.</P>
</TEXT>
</DOC>
<doc><docno>FT-2</docno>No tags here.</doc>
"""
TOPICS = """<top>
<num> Number: 301
<title> bees and
honey

<desc> Description:
What do bees eat?
</top>
<top><num>302</num><title>wasps</title></top>
"""


def test_trec_files(tmp_path):
    place = tmp_path / "trec"
    (place / "collection").mkdir(parents=True)
    write(place / "collection" / "ft_1.gz", TREC_DOCS)
    latin = "<DOC>\n<DOCNO>FT-3</DOCNO>\n<TEXT>caf\u00e9</TEXT>\n</DOC>\n".encode("latin-1")
    (place / "collection" / "ft_2").write_bytes(latin)
    write(place / "topics.txt", TOPICS)
    write(place / "qrels.txt", "301 0 FT-1 2\n302 0 FT-2 0\n")
    dataset = open_dataset(f"trec:{place}")
    dataset.check()
    docs = [("FT-1", "Bees & honey They fly. They sting."), ("FT-2", "No tags here.")]
    assert list(dataset.docs()) == [*docs, ("FT-3", "caf\u00e9")]
    assert dataset.counts() == {"documents_in_latin_1": 1}
    assert list(dataset.queries()) == [("301", "bees and honey"), ("302", "wasps")]
    assert list(dataset.qrels()) == [("301", "FT-1", 2), ("302", "FT-2", 0)]
    named = f"collection={place}/collection,topics={place}/topics.txt,query={{title}}: {{desc}}"
    other = open_dataset(f"trec:{named},text={{headline}}")
    assert next(other.docs()) == ("FT-1", "Bees & honey")
    assert next(other.queries()) == ("301", "bees and honey: What do bees eat?")
    write(place / "topics.2.txt", TOPICS)
    with pytest.raises(ConfigError, match=r"found topics\.2\.txt, topics\.txt; set split"):
        open_dataset(f"trec:{place}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<DOC>\n<DOCNO>1</DOCNO>\n", r"c\.trec:1: expected a </DOC> after this <DOC>"),
        ("<DOC>\n<DOCNO>1</DOCNO>\n<DOC>\n", r"c\.trec:3: expected </DOC> before the next"),
        ("\n<DOC>\n<TEXT>one</TEXT></DOC>\n", r"c\.trec:2: expected a <DOCNO> in every <DOC>"),
    ],
)
def test_a_trec_document_that_is_wrong(tmp_path, text, words):
    with pytest.raises(ConfigError, match=words):
        list(opened(tmp_path, write(tmp_path / "c.trec", text)).docs())


def test_an_id_in_angle_brackets_is_no_tag(tmp_path):
    corpus = write(tmp_path / "c.tsv", "<dbpedia:Bee>\ta bee\n<docks>\tships\n")
    assert list(opened(tmp_path, corpus).docs()) == [
        ("<dbpedia:Bee>", "a bee"),
        ("<docks>", "ships"),
    ]


def test_a_topic_without_a_number(tmp_path):
    topics = write(tmp_path / "t.txt", "<top>\n<title> one\n</top>\n")
    with pytest.raises(ConfigError, match=r"t\.txt:1: expected a <num>"):
        list(opened(tmp_path, write(tmp_path / "c.tsv", "d\tx\n"), queries=topics).queries())
    topics = write(tmp_path / "t.xml", '<topics>\n<topic number="1"><query>q</query></topic>\n')
    dataset = opened(tmp_path, write(tmp_path / "c.tsv", "d\tx\n"), queries=topics)
    assert list(dataset.queries()) == [("1", "q")]


def test_msmarco_files(tmp_path):
    write(tmp_path / "collection.tsv", "0\tone\n1\ttwo\n")
    for split in ("train", "dev.small"):
        write(tmp_path / f"queries.{split}.tsv", f"7\twords of {split}\n")
    write(tmp_path / "qrels.train.tsv.gz", "7\t0\t1\t1\n")
    dataset = open_dataset(f"msmarco:{tmp_path}", "train")
    dataset.check()
    assert list(dataset.docs()) == [("0", "one"), ("1", "two")]
    assert list(dataset.queries()) == [("7", "words of train")]
    assert list(dataset.qrels()) == [("7", "1", 1)]
    assert not list(open_dataset(f"msmarco:{tmp_path}", "dev.small").qrels())
    for split, words in ((None, "found none"), ("dev", "found 'dev'; valid: dev.small, train")):
        with pytest.raises(ConfigError, match=f"expected a split, {words}"):
            open_dataset(f"msmarco:{tmp_path}", split)
    with pytest.raises(ConfigError, match="no folder there"):
        open_dataset(f"msmarco:{tmp_path}/none", "train")


def test_msmarco_files_of_no_split(tmp_path):
    for name, row in (("collection", "0\tone"), ("queries", "7\twords"), ("qrels", "7\t0\t0\t1")):
        write(tmp_path / f"{name}.tsv", f"{row}\n")
    dataset = open_dataset(f"msmarco:{tmp_path}", None)
    dataset.check()
    assert list(dataset.docs()) == [("0", "one")]
    assert list(dataset.queries()) == [("7", "words")] and list(dataset.qrels()) == [("7", "0", 1)]
    with pytest.raises(ConfigError, match=r"found 'train'; queries.tsv is of no split: leave `spl"):
        open_dataset(f"msmarco:{tmp_path}", "train")
    (tmp_path / "qrels.tsv").unlink()
    assert not list(open_dataset(f"msmarco:{tmp_path}", None).qrels())
