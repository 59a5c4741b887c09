"""Folders that sentence-transformers saved: its own vectors and scores, or a refusal by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import DOC_TEXTS, QUERY_TEXTS, folder_of, spread
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder as TheirCrossEncoder
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules as m

from raypipe.config import ConfigError
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer, TextEncoder
from raypipe.inference.truncation import LongestFirst
from raypipe.models.backbone import Backbone
from raypipe.models.bi_encoder import BiEncoder
from raypipe.models.cross_encoder import CrossEncoder
from raypipe.models.sentence_modules import folder_reader
from raypipe.models.tokenizer import load_tokenizer
from raypipe.models.trained_bi_encoder import TrainedBiEncoder
from raypipe.teachers.cross_encoder import CrossEncoderTeacher

WIDTH, LENGTH = 32, 20
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
TEXTS = [*QUERY_TEXTS[:3], *DOC_TEXTS[:4], "bama"]


def transformer(family: str = "bert") -> Any:
    return m.Transformer(str(folder_of(family)), max_seq_length=LENGTH)


def dense(into: int = WIDTH, out: int = 16, activation: Any = None, **fields) -> Any:
    return m.Dense(into, out, activation_function=activation or torch.nn.Tanh(), **fields)


def ours(folder: Path, **fields) -> np.ndarray:
    """[texts, width]: by the steps' own way, with the queries' prefix before the first three."""
    config = BiEncoder(backbone=str(folder), **fields)
    config.check()
    read, tokenizer = folder_reader(folder), load_tokenizer(folder)
    query, doc = config.prefixes(read)
    encode = TextEncoder(
        config.load(folder, "cpu"),
        Template.of(tokenizer, pair=False),
        config.longest(read),
        200,
        "fp32",
        "cpu",
        prefixed=True,
    )
    texts = [(query if i < 3 else doc) + text for i, text in enumerate(TEXTS)]
    return encode([np.array(r) for r in tokenizer(texts, add_special_tokens=False)["input_ids"]])


def theirs(folder: Path) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu")
    both = model.encode_query(TEXTS[:3]), model.encode_document(TEXTS[3:])
    return np.concatenate(both)


def pooled(mode: Any, *more: Any, family: str = "bert") -> Callable[[], list[Any]]:
    return lambda: [transformer(family), m.Pooling(WIDTH, pooling_mode=mode), *more]


CASES = {
    **{mode: pooled(mode, m.Normalize()) for mode in MODES},
    "no Normalize": pooled("mean"),
    "three joined": pooled(("cls", "max", "lasttoken"), m.Normalize()),
    "Dense": pooled("mean", dense(), m.Normalize()),
    "two Dense": pooled(
        "mean", dense(out=64, activation=torch.nn.Identity()), dense(64, bias=False)
    ),
    "joined, Dense": pooled(("max", "mean"), dense(2 * WIDTH, activation=torch.nn.GELU())),
    "LayerNorm": pooled("cls", m.Dropout(0.5), m.LayerNorm(WIDTH), m.Normalize()),
    "byte-level lasttoken": pooled("lasttoken", m.Normalize(), family="modernbert"),
    "Unigram weightedmean": pooled("weightedmean", family="deberta_v3"),
}


def saved(modules: Callable[[], list[Any]], folder: Path, **prompts: str) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = SentenceTransformer(modules=modules(), device="cpu")
        for module in list(model)[1:]:
            spread(module)
    model.prompts = {**model.prompts, **prompts}
    model.save(str(folder), create_model_card=False)
    return folder


def old_form(folder: Path) -> None:
    """As sentence-transformers 2 to 5 wrote it: flags of pooling, other names of classes."""
    path = folder / "1_Pooling" / "config.json"
    settings = json.loads(path.read_text())
    modes = settings.pop("pooling_mode")
    modes = [modes] if isinstance(modes, str) else modes
    flags = {
        "cls": "cls_token",
        "lasttoken": "lasttoken",
        "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    }
    names = {mode: flags.get(mode, f"{mode}_tokens") for mode in MODES}
    settings |= {f"pooling_mode_{names[mode]}": mode in modes for mode in MODES}
    settings["word_embedding_dimension"] = settings.pop("embedding_dimension")
    path.write_text(json.dumps(settings))
    listed = json.loads((folder / "modules.json").read_text())
    for entry in listed:
        entry["type"] = "sentence_transformers.models." + entry["type"].rpartition(".")[2]
    (folder / "modules.json").write_text(json.dumps(listed))
    limits = {"max_seq_length": LENGTH, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(limits))


@pytest.mark.parametrize("case", CASES)
def test_vectors_are_those_of_sentence_transformers(case, tmp_path):
    folder = saved(CASES[case], tmp_path / "model")
    expected = theirs(folder)
    assert len(np.unique(expected.round(4), axis=0)) == len(TEXTS)
    np.testing.assert_allclose(ours(folder), expected, rtol=0, atol=2e-6 * np.abs(expected).max())
    old_form(folder)
    assert np.array_equal(theirs(folder), expected)
    np.testing.assert_allclose(ours(folder), expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "prompts",
    [{"query": "ba du: ", "document": "lo zu:"}, {"query": "ki"}, {"passage": "a ", "task": "b "}],
    ids=str,
)
def test_prompts_of_the_folder_stand_before_the_texts(prompts, tmp_path):
    folder = saved(CASES["mean"], tmp_path / "model", **prompts)
    expected = theirs(folder)
    np.testing.assert_allclose(ours(folder), expected, rtol=0, atol=1e-6)
    if "query" in prompts:
        assert np.abs(ours(folder, query_prefix="", doc_prefix="") - expected).max() > 1e-3
        own = {"query_prefix": prompts["query"], "doc_prefix": prompts.get("document", "")}
        np.testing.assert_allclose(ours(folder, **own), expected, rtol=0, atol=1e-6)


def test_fields_of_the_recipe_come_before_the_folder(tmp_path):
    folder = saved(CASES["lasttoken"], tmp_path / "model")
    mean = saved(CASES["no Normalize"], tmp_path / "mean")
    found = ours(folder, pooling="mean", normalize=False)
    np.testing.assert_allclose(found, theirs(mean), rtol=0, atol=1e-5)
    assert np.allclose(np.linalg.norm(ours(mean, normalize=True), axis=1), 1)


def test_a_folder_of_transformers_alone_gives_unit_means():
    found = ours(folder_of("bert"), max_length=LENGTH)
    assert np.allclose(np.linalg.norm(found, axis=1), 1)


def test_the_store_has_all_that_the_vectors_need(tmp_path):
    folder = saved(CASES["two Dense"], tmp_path / "model")
    files = Backbone(str(folder)).spec()["files"]
    assert {"2_Dense/config.json", "2_Dense/model.safetensors", "3_Dense/config.json"} <= {*files}
    before = Backbone(str(folder)).digest
    weights = load_file(folder / "2_Dense" / "model.safetensors")
    save_file({n: -w for n, w in weights.items()}, folder / "2_Dense" / "model.safetensors")
    assert Backbone(str(folder)).digest != before


# --- what is refused ------------------------------------------------------------------------------


def edited(name: str, **fields: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**content, **fields}))

    return edit


def typed(number: int, name: str, path: str | None = None) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        listed = json.loads((folder / "modules.json").read_text())
        listed[number] |= {"type": name} | ({} if path is None else {"path": path})
        (folder / "modules.json").write_text(json.dumps(listed))

    return edit


def without(number: int) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        listed = json.loads((folder / "modules.json").read_text())
        del listed[number]
        (folder / "modules.json").write_text(json.dumps(listed))

    return edit


def pickled(folder: Path) -> None:
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")


ST = "sentence_transformers.models."


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (typed(2, ST + "CNN"), r"the module sentence_transformers\.models\.CNN in 2_Dense"),
        (typed(1, ST + "WeightedLayerPooling"), "WeightedLayerPooling in 1_Pooling"),
        (typed(0, "custom_st.Transformer"), r"the module custom_st\.Transformer"),
        (typed(2, "mine.Dense"), r"the module mine\.Dense in 2_Dense"),
        (typed(0, ST + "StaticEmbedding"), "StaticEmbedding"),
        (typed(0, ST + "Transformer", "0_Transformer"), "Transformer at its start"),
        (typed(2, ST + "Pooling"), "a second Pooling in 2_Dense"),
        (without(1), "no pooling of tokens in 2_Dense"),
        (edited("1_Pooling/config.json", pooling_mode="attention"), "pooling attention in 1_Pool"),
        (edited("1_Pooling/config.json", include_prompt=False), "include_prompt: false"),
        (edited("2_Dense/config.json", activation_function="os.system"), r"activation os\.system"),
        (edited("2_Dense/config.json", use_residual=True), "Dense with use_residual in 2_Dense"),
        (edited("2_Dense/config.json", module_input_name="token_embeddings"), "Dense of token_emb"),
        (edited("2_Dense/config.json", in_features=48), r"weights of other names or shapes"),
        (edited("1_Pooling/config.json", pooling_mode=["cls", "max"]), r"32 numbers do not go thr"),
        (edited("sentence_bert_config.json", transformer_task="fill-mask"), "the task fill-mask"),
        (pickled, r"expected the weights of a module in .*2_Dense/model\.safetensors, found none"),
    ],
)  # fmt: skip
def test_modules_that_are_not_known_are_refused_by_name(edit, message, tmp_path):
    folder = saved(CASES["Dense"], tmp_path / "model")
    BiEncoder(backbone=str(folder)).check()
    edit(folder)
    with pytest.raises(ConfigError, match=message) as error:
        BiEncoder(backbone=str(folder)).check("candidates")
    assert str(folder) in str(error.value)


def test_texts_that_are_lower_cased_before_the_tokenizer(tmp_path):
    for family, refused in (("modernbert", True), ("bert", False)):
        folder = saved(pooled("mean", family=family), tmp_path / family)
        edited("sentence_bert_config.json", do_lower_case=True)(folder)
        try:
            BiEncoder(backbone=str(folder)).check()
            assert not refused
        except ConfigError as error:
            assert refused and "do_lower_case in sentence_bert_config.json" in str(error)


def test_an_encoder_whose_weights_are_missing(tmp_path):
    """Of other architectures under a known name: weights would be drawn at random."""
    shutil.copytree(folder_of("bert"), tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    del weights["encoder.layer.1.intermediate.dense.weight"]
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"1 missing, .*layer\.1\.intermediate\.dense\.weight"):
        BiEncoder(backbone="x").load(tmp_path / "model", "cpu")


# --- cross-encoders -------------------------------------------------------------------------------

PAIRS = [(QUERY_TEXTS[i % 3], DOC_TEXTS[i]) for i in range(7)]


def scores(folder: Path, label: int | None = None) -> np.ndarray:
    teacher = CrossEncoderTeacher(
        backbone=str(folder), label=label, truncation=LongestFirst(max_length=LENGTH)
    )
    teacher.check()
    tokenizer = load_tokenizer(folder)
    score = PairScorer(
        CrossEncoder(backbone=str(folder)).load(
            folder, 0, training=False, device="cpu", label=label
        ),
        Template.of(tokenizer),
        teacher.truncation,
        200,
        "fp32",
        "cpu",
    )
    sides = zip(*PAIRS, strict=True)
    rows = [tokenizer(list(side), add_special_tokens=False)["input_ids"] for side in sides]
    return score([(np.array(q), np.array(d)) for q, d in zip(*rows, strict=True)])


def modular(folder: Path, mode: Any = "cls", family: str = "modernbert", **fields: Any) -> Path:
    """The layout of the ettin re-rankers."""
    width = WIDTH * (1 if isinstance(mode, str) else len(mode))
    modules = [
        transformer(family),
        m.Pooling(WIDTH, pooling_mode=mode),
        m.Dense(width, WIDTH, activation_function=torch.nn.GELU()),
        m.LayerNorm(WIDTH),
        dense(out=1, activation=torch.nn.Identity(), module_output_name="scores", **fields),
    ]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = TheirCrossEncoder(modules=modules, device="cpu", activation_fn=torch.nn.Identity())
        for module in modules[2:]:
            spread(module)
    model.save(str(folder))
    return folder


def expected_scores(folder: Path) -> np.ndarray:
    model = TheirCrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
    found = model.predict(PAIRS)
    assert np.ptp(found) > 0.001
    return found


@pytest.mark.parametrize(
    ("family", "mode"), [("modernbert", "cls"), ("bert", "mean"), ("roberta", ("cls", "max"))]
)
def test_modular_cross_encoders_give_their_scores(family, mode, tmp_path):
    folder = modular(tmp_path / "model", mode, family)
    np.testing.assert_allclose(scores(folder), expected_scores(folder), rtol=0, atol=1e-5)
    listed = json.loads((folder / "modules.json").read_text())
    for entry in listed:  # of version 5
        entry["type"] = "sentence_transformers.models." + entry["type"].rpartition(".")[2]
    (folder / "modules.json").write_text(json.dumps(listed))
    np.testing.assert_allclose(scores(folder), expected_scores(folder), rtol=0, atol=1e-5)


def test_a_modular_cross_encoder_is_not_trained_as_if_it_had_no_head(tmp_path):
    folder = modular(tmp_path / "model")
    message = r"modules \(2_Dense, 3_LayerNorm, 4_Dense\), which raypipe does not train; use the"
    with pytest.raises(ConfigError, match=message):
        CrossEncoder(backbone=str(folder)).check()
    with pytest.raises(ConfigError, match=message):
        CrossEncoder(backbone=str(folder)).load(folder, 1, training=True, device="cpu")
    assert not Backbone(str(folder)).has_scorer
    CrossEncoder(backbone=str(saved(CASES["Dense"], tmp_path / "bi"))).check()  # a fresh head


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edited("4_Dense/config.json", out_features=2), "no Dense module with one score in 4"),
        (typed(3, "sentence_transformers.cross_encoder.modules.LogitScore"), "LogitScore in 3_"),
        (
            edited(
                "config_sentence_transformers.json",
                prompts={"rank": "Rank: "},
                default_prompt_name="rank",
            ),
            "puts 'Rank: ' before every pair",
        ),
        (edited("sentence_bert_config.json", transformer_task="text-generation"), "the task text"),
    ],
)  # fmt: skip
def test_modular_heads_that_are_refused(edit, message, tmp_path):
    folder = modular(tmp_path / "model")
    edit(folder)
    with pytest.raises(ConfigError, match=message):
        CrossEncoderTeacher(backbone=str(folder)).check()


def classifier(folder: Path, labels: int, family: str = "bert") -> Path:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder_of(family), num_labels=labels
        )
        spread(model)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder_of(family), model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_cross_encoder_saved_by_sentence_transformers_is_plain(tmp_path):
    TheirCrossEncoder(str(classifier(tmp_path / "one", 1))).save(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "modules.json").is_file()
    found = scores(tmp_path / "saved")
    np.testing.assert_allclose(found, expected_scores(tmp_path / "saved"), rtol=0, atol=1e-5)
    CrossEncoder(backbone=str(tmp_path / "saved")).check()


@pytest.mark.parametrize(("labels", "label"), [(2, 1), (2, 0), (3, 2)])
def test_one_label_of_several_is_the_score(labels, label, tmp_path):
    folder = classifier(tmp_path / "model", labels)
    logits = torch.tensor(TheirCrossEncoder(str(folder), device="cpu").predict(PAIRS))
    p = logits.double().softmax(1)[:, label]
    np.testing.assert_allclose(scores(folder, label), (p / (1 - p)).log(), rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match=rf"{labels} labels; set `label` to .* 0 to {labels - 1}"):
        scores(folder)
    with pytest.raises(ConfigError, match=rf"number {labels} is the score, .*{labels} labels"):
        scores(folder, labels)
    with pytest.raises(ConfigError, match=rf"^model\.backbone .* with {labels} labels"):
        CrossEncoder(backbone=str(folder)).check()


def test_num_labels_without_names_of_labels(tmp_path):
    folder = classifier(tmp_path / "model", 1)
    expected = scores(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (folder / "config.json").write_text(json.dumps({**config, "num_labels": 1}))
    assert np.array_equal(scores(folder), expected) and Backbone(str(folder)).has_scorer
    (folder / "config.json").write_text(json.dumps(config))  # transformers takes two then
    with pytest.raises(ConfigError, match="with 2 labels"):
        CrossEncoderTeacher(backbone=str(folder)).check()


# --- what training writes ------------------------------------------------------------------------


def trained(folder: Path, target: Path, **fields) -> Path:
    """A checkpoint of the model with other weights, as a stage leaves it."""
    config = TrainedBiEncoder(backbone=str(folder), max_length=LENGTH, query_length=LENGTH)
    config = config.replace(**fields)
    config.check()
    model = config.load(folder, 1, training=False, device="cpu")
    torch.manual_seed(4)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    config.save(model, target, folder, LENGTH)
    return target


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_has_the_same_vectors_in_sentence_transformers(case, tmp_path):
    """Prompts, pooling, layers with weights and normalisation come out as they were trained."""
    folder = saved(CASES[case], tmp_path / "model", query="lori: ", document="bama ")
    checkpoint = trained(folder, tmp_path / "checkpoint")
    expected = theirs(checkpoint)
    assert not np.allclose(expected, theirs(folder), rtol=0.01)  # other weights
    # theirs are padded to the longest text; layers that training made steep enlarge the rounding
    near = 1e-4 if "Dense" in case else 1e-5
    np.testing.assert_allclose(
        ours(checkpoint), expected, rtol=0, atol=near * np.abs(expected).max()
    )


def test_a_recipes_own_pooling_and_prefixes_are_the_checkpoints(tmp_path):
    folder = saved(CASES["mean"], tmp_path / "model", query="lori: ")
    own = {"pooling": "cls", "normalize": False, "query_prefix": "", "doc_prefix": "duri "}
    checkpoint = trained(folder, tmp_path / "checkpoint", **own)
    model = SentenceTransformer(str(checkpoint), device="cpu")
    assert model.prompts == {"query": "", "document": "duri "}
    assert model.similarity_fn_name == "dot" and model.max_seq_length == LENGTH
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling"]
    expected = theirs(checkpoint)
    np.testing.assert_allclose(
        ours(checkpoint), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )
    assert BiEncoder(backbone=str(checkpoint)).prefixes(folder_reader(checkpoint)) == ("", "duri ")
