"""Lists of a live search engine, asked of a stand-in in this process; no cluster is needed."""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import Any

import pytest
from search_server import PATHS, REQUESTS, SearchServer, searching
from servers_here import pauses_of_clients, several
from small_source import QUERIES, read, small_data

from raypipe.candidates.search_engine import source as module
from raypipe.candidates.search_engine.source import SearchEngine
from raypipe.config import Config, ConfigError
from raypipe.datasets.steps import Collection, Queries, QuerySet
from raypipe.recipe.reading import validate
from raypipe.resources import Context, Resources
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder

SERVED = {"d3": "about q1", "gone": "about", "d1": "about", "d5": "q5"}
"""What the engine has; `gone` is no document of the data set."""
CONTEXT = Context(Resources(), progress_bars=False)
KEY = "user:hush-hush"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> QuerySet:
    return small_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def builder(tmp_path, said) -> Builder:
    return Builder(Store(str(tmp_path)), CONTEXT, announce=said.append)


@pytest.fixture
def serve():
    with several(partial(searching, SERVED)) as start:
        yield start


def engine(server: SearchServer, kind: str = "elasticsearch", **fields: Any) -> SearchEngine:
    path = "/solr" if kind == "solr" else ""
    index = {} if kind == "vespa" else {"index": "shop"}
    plain = {"request": REQUESTS[kind], "depth": 3, "retry_wait_s": 0, "retries": 2, "name": "shop"}
    return SearchEngine(url=server.url + path, engine=kind, **{**index, **plain, **fields})


def candidates(data: QuerySet, source: SearchEngine):
    return source.candidates(Collection(data), Queries(data, False), "fp32")


# ---- lists


@pytest.mark.parametrize("kind", REQUESTS)
def test_every_engine_gives_its_lists(serve, builder, data, kind):
    server = serve()
    found, counts, rows = read(builder, data, engine(server, kind))
    assert found == {query: ["d3", "d1"] for query in QUERIES}
    (one,) = (row for row in rows if row["query_id"] == "q1")
    assert one["scores"] == [2.0, 1.0] and one["sources"] == ["shop", "shop"]
    assert server.paths == {PATHS[kind]} and server.keys == {None}
    assert sorted(server.asked) == [f"about {query}" for query in QUERIES]
    assert {r.get("size", r.get("limit", r.get("hits"))) for r in server.requests} == {3}
    assert counts == {
        "rows": 6,
        "candidates": 12,
        "queries_without_candidates": 0,
        "unknown_documents": 6,
        "duplicates": 0,
        "beyond_depth": 0,
        "queries_without_scores": 0,
        f"queries_asked_on_{module.today()}": 6,
    }


def test_the_depth_is_a_number_or_text_in_the_request(serve, builder, data):
    server = serve()
    read(builder, data, engine(server, "vespa", depth=2))
    assert server.requests[0]["yql"].endswith("{targetHits: 2}userInput(@text)")
    more = {**REQUESTS["opensearch"], "knn": {"k": "{depth}", "note": "best {depth}"}}
    read(builder, data, engine(server, "opensearch", request=more, depth=2))
    assert server.requests[-1]["knn"] == {"k": 2, "note": "best 2"}


@pytest.mark.parametrize(("kind", "field"), [("elasticsearch", "sku"), ("vespa", "sku")])
def test_ids_of_a_field(serve, builder, data, kind, field):
    found, *_ = read(builder, data, engine(serve(), kind, doc_id=field))
    assert found["q1"] == ["d3", "d1"]


def test_hits_of_one_document_are_one_and_sorted_hits_have_no_score(serve, builder, data):
    hits = [{"_id": d, "_score": None} for d in ("d5", "d2", "d5", "d4", "d0")]
    server = serve(lambda text, number: (200, {"hits": {"hits": hits}}))
    found, counts, rows = read(builder, data, engine(server, depth=3))
    assert found["q1"] == ["d5", "d2", "d4"] and rows[0]["scores"] == [-1.0, -2.0, -3.0]
    assert (counts["duplicates"], counts["beyond_depth"]) == (6, 6)
    assert counts["queries_without_scores"] == 6


def test_a_query_of_any_characters_arrives_as_it_is(serve, builder, tmp_path):
    text = 'a "quoted" \\ {query} {depth} } line\u2028 \U0001f50d'
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / "corpus.jsonl").write_text('{"_id": "d1", "title": "", "text": "x"}\n')
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q", "text": text}) + "\n")
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td1\t1\n")
    odd = QuerySet(dataset=f"beir:{folder}", split="test")
    hits = (200, {"hits": {"hits": [{"_id": "d1", "_score": 1}]}})
    server = serve(lambda text, number: hits)
    read(builder, odd, engine(server))
    assert server.asked == [text]


# ---- patience


def test_what_is_busy_or_partial_is_asked_again_and_nothing_else(serve, builder, data):
    busy = (200, {"status": 429, "error": {"type": "es_rejected_execution_exception"}})
    shards = (200, {"hits": {"hits": []}, "_shards": {"total": 2, "failed": 1}})

    def trouble(text, number):
        if text == "about q2" and number <= 1:
            return busy
        return shards if text == "about q3" and number <= 2 else None

    server = serve(trouble)
    found, *_ = read(builder, data, engine(server, queries_per_request=4))
    assert found["q2"] == found["q3"] == ["d3", "d1"]
    times = {text: server.asked.count(text) for text in server.asked}
    assert times == {"about q2": 2, "about q3": 3, **{f"about q{i}": 1 for i in (0, 1, 4, 5)}}


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("solr", (503, {"error": {"msg": "warming"}})),
        ("solr", (200, {"responseHeader": {"partialResults": True}, "response": {"docs": []}})),
        ("vespa", (200, {"root": {"coverage": {"degraded": {"timeout": True}}}})),
        ("vespa", (200, {"root": {"errors": [{"code": 12, "message": "timed out"}]}})),
        ("elasticsearch", (429, {"whole": True})),
        ("elasticsearch", (200, {"timed_out": True, "hits": {"hits": []}})),
    ],
)
def test_every_engine_is_waited_for(serve, builder, data, kind, answer):
    server = serve(lambda text, number: answer if number == 1 else None)
    found, *_ = read(builder, data, engine(server, kind, queries_per_request=1))
    assert found == {query: ["d3", "d1"] for query in QUERIES}
    assert all(server.asked.count(f"about {query}") == 2 for query in QUERIES)


def test_requests_start_at_the_rate_that_is_allowed(serve, builder, data, monkeypatch):
    pauses = pauses_of_clients(monkeypatch)
    read(builder, data, engine(serve(), "solr", requests_per_second=0.01, concurrency=6))
    assert [round(pause, -1) for pause in pauses if pause > 1] == [100, 200, 300, 400, 500]


def test_an_interrupted_job_asks_only_what_is_missing(serve, builder, data, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(module, "today", lambda: "2026-11-26")
    down = {"status": 503, "error": {"reason": "no master"}}
    away = [True]
    server = serve(lambda text, number: (200, down) if away and len(server.asked) > 2 else None)
    with pytest.raises(
        RuntimeError, match=r"_msearch after 3 tries for 2 of 2 queries.*503: no ma"
    ):
        builder.get(candidates(data, engine(server)))
    first = server.asked[:2]
    away.clear()
    server.asked.clear()
    monkeypatch.setattr(module, "today", lambda: "2026-11-27")
    found, counts, _ = read(builder, data, engine(server))
    assert found == {query: ["d3", "d1"] for query in QUERIES}
    assert len(server.asked) == 4 and not set(first) & set(server.asked)
    assert counts["chunks_taken_over"] == 1
    assert (counts["queries_asked_on_2026-11-26"], counts["queries_asked_on_2026-11-27"]) == (2, 4)
    (alarm,) = builder.alarms
    assert "asked on 2 days, from 2026-11-26 to 2026-11-27" in alarm


def test_a_snapshot_is_asked_once_and_another_anew(serve, tmp_path, builder, data, said):
    server = serve()
    step = candidates(data, engine(server))
    artifact = builder.get(step)
    facts = artifact.manifest["facts"]
    assert facts == {"url": f"{server.url}/shop/_msearch", "snapshot_of": module.today()}
    later = Builder(Store(str(tmp_path)), CONTEXT, announce=said.append)
    elsewhere = engine(server).replace(url="http://elsewhere.example:9200", retries=9)
    assert later.get(candidates(data, elsewhere)).digest == artifact.digest
    assert len(server.asked) == 6
    assert said[-1].endswith(
        f"the lists of {server.url}/shop/_msearch as of {module.today()}, the recipe names "
        "http://elsewhere.example:9200/shop/_msearch; set `snapshot` to have it asked again"
    )
    other = builder.get(candidates(data, engine(server, snapshot="2026-12-01")))
    assert other.digest != artifact.digest and len(server.asked) == 12
    assert engine(server, snapshot="2026-12-01").label == "shop 2026-12-01"


# ---- refusals


@pytest.mark.parametrize(
    ("kind", "answer", "words"),
    [
        (
            "elasticsearch",
            (
                200,
                {
                    "status": 404,
                    "error": {"type": "index_not_found", "reason": "no such index [shop]"},
                },
            ),
            r"_msearch refused: 404: index_not_found: no such index \[shop\] \(query 'q\d'\); "
            "correct url or index",
        ),
        ("solr", (400, {"error": {"msg": "undefined field body"}}), "400: undefined field body"),
        ("vespa", (400, {"root": {"errors": [{"code": 3, "message": "no yql"}]}}), "400: no yql"),
        ("vespa", (200, {"root": {"errors": [{"code": 3, "message": "no yql"}]}}), "no yql .query"),
        ("solr", (403, {}), "403: .* a key with this right"),
        (
            "solr",
            (200, {"response": {}}),
            "form that is not its engine's: without 'responseHeader'",
        ),
        (
            "vespa",
            (200, {"root": {"children": [{"id": "index:x/0/abc", "relevance": 1}]}}),
            "id 'index:x/0/abc', which is no id:NAMESPACE:TYPE::ID.* correct engine, url or doc_id",
        ),
        (
            "solr",
            (200, {"responseHeader": {}, "response": {"docs": [{"id": "z"}]}}),
            "none of its 6 documents is in the collection; set doc_id",
        ),
        (
            "solr",
            (200, {"responseHeader": {}, "response": {"docs": []}}),
            "no document for any of 6 queries; correct `request`",
        ),
    ],
)
def test_an_engine_that_refuses_or_does_not_fit(serve, builder, data, kind, answer, words):
    server = serve(lambda text, number: answer)
    with pytest.raises(ConfigError, match=words):
        builder.get(candidates(data, engine(server, kind)))
    assert all(server.asked.count(text) == 1 for text in server.asked)  # no use in asking again


def test_a_server_that_is_not_there_or_stays_away(serve, builder, data):
    server = serve(lambda text, number: (502, {}))
    with pytest.raises(RuntimeError, match=r"no answer from .*/shop/query after 3 tries .*502"):
        builder.get(candidates(data, engine(server, "solr")))
    gone = engine(server).replace(url="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match=r"no connection to http://127.0.0.1:9/shop/_msearch"):
        builder.get(candidates(data, gone))


def test_the_key_goes_to_the_server_and_into_no_message(serve, builder, data, monkeypatch):
    monkeypatch.setenv("RAYPIPE_SEARCH_KEY", KEY)
    sent = base64.b64encode(KEY.encode()).decode()
    answer = (400, {"error": {"msg": f"{KEY} and {sent} may not read"}})
    server = serve(lambda text, number: answer)
    source = engine(server, "solr", api_key_env="RAYPIPE_SEARCH_KEY", auth="basic")
    with pytest.raises(ConfigError, match=r"400: \[key\] and \[key\] may not read") as caught:
        builder.get(candidates(data, source))
    assert server.keys == {f"Basic {sent}"} and "hush" not in str(caught.value)
    assert "hush" not in repr(source) + source.model_dump_json()
    server.knock = (401, {"error": {"msg": "who are you"}})
    with pytest.raises(ConfigError, match=r"refused: 401: .* `auth` to its kind"):
        builder.get(candidates(data, engine(server, "solr")))


def test_a_key_that_cannot_be_sent_is_named_before_work(serve, monkeypatch):
    monkeypatch.delenv("RAYPIPE_SEARCH_KEY", raising=False)
    source = engine(serve(), api_key_env="RAYPIPE_SEARCH_KEY", auth="basic")
    with pytest.raises(ConfigError, match="RAYPIPE_SEARCH_KEY is not set"):
        source.check()
    monkeypatch.setenv("RAYPIPE_SEARCH_KEY", "only-a-token")
    with pytest.raises(ConfigError, match="holds no colon; auth basic expects user:password"):
        source.check()


class Recipe(Config):
    candidates: SearchEngine


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"api_key_env": "AWS_SECRET_ACCESS_KEY"}, "whose value would go to search.example; if"),
        ({"api_key_env": "OPENAI_API_KEY"}, "a name that begins with RAYPIPE_, .* OPENAI_API_KEY"),
        ({"api_key_env": "c2VjcmV0"}, "the name of an environment variable in capitals"),
        ({"url": "https://me:hush@search.example"}, "it holds a password or a key"),
        ({"url": "search.example:9200"}, "expected http://HOST:9200"),
        ({"index": None}, "index: expected the name that elasticsearch is asked by"),
        ({"engine": "vespa"}, "index: vespa has none"),
        ({"request": {"query": {"match_all": {}}}}, 'expected "{query}" in one of its texts'),
        ({"request": {**REQUESTS["solr"], "size": 5}}, "size is set by `depth`; leave it out"),
    ],
)
def test_a_source_that_is_refused_before_work(fields, words):
    tree = {"url": "https://search.example", "index": "shop", "request": REQUESTS["opensearch"]}
    with pytest.raises(ConfigError, match=words) as caught:
        validate(Recipe, {"candidates": {"type": "search_engine", **tree, **fields}}, "recipe")
    assert "hush" not in str(caught.value) and "c2VjcmV0" not in str(caught.value)


def test_a_day_of_yaml_names_a_snapshot(recipe):
    from raypipe.recipe.experiment import Experiment
    from raypipe.recipe.reading import load

    words = (
        "candidates={type: search_engine, url: 'http://h:9200', index: shop, depth: 20, "
        "snapshot: 2026-11-27, request: {query: {match: {body: '{query}'}}}}"
    )
    assert load(Experiment, recipe, [words]).candidates.snapshot == "2026-11-27"
