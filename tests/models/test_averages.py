"""Averaged checkpoints: hand-made tensors, a naive mean, folders that open as before."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from raypipe.config import digest
from raypipe.inference.pairs import Template
from raypipe.inference.scoring import PairScorer
from raypipe.inference.truncation import LongestFirst
from raypipe.models.averages import AveragedWeights, mean, write_tensors
from raypipe.models.cross_encoder import CrossEncoder, save
from raypipe.models.tokenizer import load_tokenizer
from raypipe.storage.artifacts import Artifact, Step, Store
from raypipe.storage.builder import Builder

LENGTH = 24


@dataclass(frozen=True)
class Folder(Step):
    """A directory as a checkpoint."""

    folder: Path
    salt: int = 0

    kind: ClassVar[str] = "checkpoint"

    @property
    def name(self) -> str:
        return "trained"

    def spec(self) -> Mapping[str, Any]:
        return {"folder": digest(str(self.folder)), "salt": self.salt}

    def run(self, attempt, context):
        attempt.put_directory(self.folder)
        return {}


def averaged(tmp_path: Path, *folders: Path) -> Artifact:
    builder = Builder(Store(str(tmp_path / "storage")))
    return builder.get(AveragedWeights(tuple(Folder(one) for one in folders)))


def by_hand(folder: Path, tensors: dict[str, torch.Tensor], **config: Any) -> Path:
    """A directory with these weights that no library would open."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"heads": 2, **config}))
    (folder / "tokenizer.json").write_text('{"words": 1}')
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def seeds(tmp_path_factory, tiny_backbone) -> list[Path]:
    """Three checkpoints that moved apart in all their weights."""
    root = tmp_path_factory.mktemp("seeds")
    for seed in (1, 2, 3):
        model = CrossEncoder(backbone=str(tiny_backbone)).load(
            tiny_backbone, seed, training=False, device="cpu"
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for value in model.parameters():
                if value.ndim == 2:
                    value.mul_(6)
                value.add_(torch.randn(value.shape, generator=generator) * 0.05)
        model.config.raypipe = {"truncation": {"type": "longest_first", "max_length": LENGTH}}
        save(model, root / str(seed), tiny_backbone, LENGTH)
        (root / str(seed) / "trainer.json").write_text(json.dumps({"seed": seed}))
        (root / str(seed) / "history.jsonl").write_text(f'{{"step": {seed}}}\n')
        (root / str(seed) / "README.md").write_text(f"# seed {seed}\n")
    return [root / str(seed) for seed in (1, 2, 3)]


def test_numbers_by_hand(tmp_path):
    one = {"w": torch.tensor([1.0, 2.0, -3.0]), "ids": torch.tensor([[0, 1]])}
    two = {"w": torch.tensor([2.0, 2.0, 5.0]), "ids": torch.tensor([[0, 1]])}
    found = averaged(tmp_path, by_hand(tmp_path / "a", one), by_hand(tmp_path / "b", two))
    tensors = load_file(found.local() / "model.safetensors")
    assert tensors.keys() == {"w", "ids"}
    assert tensors["w"].tolist() == [1.5, 2.0, 1.0] and tensors["w"].dtype == torch.float32
    assert tensors["ids"].tolist() == [[0, 1]] and tensors["ids"].dtype == torch.int64
    # squared distances from the mean: (.25 + 0 + 16) per member; squared mean: 2.25 + 4 + 1
    spread = found.counts.pop("relative_spread")
    assert spread == pytest.approx((16.25 / 7.25) ** 0.5)
    assert {k: found.counts[k] for k in ("members", "tensors", "parameters")} == {
        "members": 2,
        "tensors": 2,
        "parameters": 5,
    }


def test_every_weight_is_the_naive_mean(seeds, tmp_path):
    found = load_file(averaged(tmp_path, *seeds).local() / "model.safetensors")
    members = [load_file(one / "model.safetensors") for one in seeds]
    assert found.keys() == members[0].keys() and len(found) > 20
    for name, tensor in found.items():
        naive = np.mean([one[name].numpy() for one in members], axis=0, dtype=np.float64)
        np.testing.assert_array_equal(tensor.numpy(), naive.astype(np.float32))
        assert not torch.equal(tensor, members[0][name])


def test_it_opens_as_its_members_do_and_scores_with_the_mean(seeds, tmp_path, beir_folder):
    from sentence_transformers import CrossEncoder as TheirCrossEncoder

    found = averaged(tmp_path, *seeds).local()
    texts = [json.loads(line)["text"] for line in (beir_folder / "corpus.jsonl").open()][:8]
    tokenizer = load_tokenizer(found)
    assert tokenizer.model_max_length == LENGTH
    ids = [np.array(one) for one in tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def scores(model: torch.nn.Module) -> np.ndarray:
        score = PairScorer(
            model, Template.of(tokenizer), LongestFirst(max_length=LENGTH), 256, "fp32", "cpu"
        )
        return score([(ids[0], one) for one in ids[1:]])

    def loaded(folder: Path) -> torch.nn.Module:
        return CrossEncoder(backbone=str(folder)).load(folder, 9, training=False, device="cpu")

    expected = loaded(seeds[0])
    with torch.no_grad():
        for name, value in expected.named_parameters():
            value.copy_(sum(dict(loaded(one).named_parameters())[name] for one in seeds) / 3)
    ours = scores(loaded(found))
    np.testing.assert_allclose(ours, scores(expected), rtol=0, atol=1e-5)
    assert np.abs(ours - scores(loaded(seeds[0]))).max() > 1e-3
    theirs = TheirCrossEncoder(str(found), device="cpu").predict([(texts[0], t) for t in texts[1:]])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_every_tensor_begins_at_a_multiple_of_its_width(tmp_path):
    tensors = {"a": torch.ones(3), "b": torch.tensor([1, 2]), "c": torch.tensor([True])}
    found = averaged(
        tmp_path,
        by_hand(tmp_path / "one", tensors),
        by_hand(tmp_path / "two", {**tensors, "a": torch.zeros(3)}),
    )
    raw = (found.local() / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    assert size % 8 == 0 and header["__metadata__"] == {"format": "pt"}
    offsets = {name: header[name]["data_offsets"] for name in tensors}
    assert offsets == {"b": [0, 16], "a": [16, 28], "c": [28, 29]}


def test_the_directory_holds_the_model_and_nothing_of_one_seed(seeds, tmp_path):
    found = averaged(tmp_path, *seeds)
    assert found.files == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert (found.local() / "tokenizer.json").read_bytes() == (
        seeds[0] / "tokenizer.json"
    ).read_bytes()
    config = json.loads((found.local() / "config.json").read_text())
    assert config == json.loads((seeds[0] / "config.json").read_text())
    assert config["raypipe"]["truncation"]["max_length"] == LENGTH


def test_the_order_of_members_does_not_matter(seeds, tmp_path):
    first, second, third = (Folder(one) for one in seeds)
    one, two = AveragedWeights((first, second, third)), AveragedWeights((third, first, second))
    assert one.digest == two.digest
    assert one.digest != AveragedWeights((first, second)).digest


def test_shards_are_read_as_one_model(seeds, tmp_path):
    from transformers import AutoModelForSequenceClassification

    shutil.copytree(seeds[1], tmp_path / "sharded")
    (tmp_path / "sharded" / "model.safetensors").unlink()
    model = AutoModelForSequenceClassification.from_pretrained(seeds[1])
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    shutil.copy(seeds[1] / "config.json", tmp_path / "sharded")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    whole = averaged(tmp_path / "w", seeds[0], seeds[1])
    shards = averaged(tmp_path / "s", seeds[0], tmp_path / "sharded")
    assert shards.files == whole.files
    one, two = (load_file(a.local() / "model.safetensors") for a in (whole, shards))
    assert one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def test_half_precision_members_become_float32(tmp_path):
    one = by_hand(tmp_path / "a", {"w": torch.tensor([1.0]).bfloat16()}, dtype="bfloat16")
    two = by_hand(tmp_path / "b", {"w": torch.tensor([1.0078125]).bfloat16()}, dtype="bfloat16")
    found = averaged(tmp_path, one, two).local()
    # halfway between two neighbours of bfloat16
    assert load_file(found / "model.safetensors")["w"].tolist() == [1.00390625]
    assert json.loads((found / "config.json").read_text())["dtype"] == "float32"


VECTORS = st.lists(
    st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False), min_size=3, max_size=3
)


@settings(deadline=None, max_examples=80, database=None)
@given(st.lists(VECTORS, min_size=2, max_size=4))
def test_the_mean_lies_between_and_of_equal_members_is_the_member(vectors):
    tensors = [torch.tensor(one) for one in vectors]
    found = mean(tensors, "w")
    stacked = torch.stack(tensors)
    assert (found >= stacked.min(0).values).all() and (found <= stacked.max(0).values).all()
    assert torch.equal(mean([tensors[0]] * len(tensors), "w"), tensors[0])


def test_a_file_has_what_was_written(tmp_path):
    tensors = {
        "wide": torch.tensor([2**40]),
        "empty": torch.zeros(0, 2),
        "transposed": torch.randn(3, 2).T,
        "scalar": torch.tensor(True),
        "flags": torch.tensor([True, False, True]),
    }
    read = load_file(write_tensors(tmp_path, tensors.items()))
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_a_written_tensor_leaves_memory(tmp_path):
    alive = weakref.WeakValueDictionary()

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for number in range(5):
            tensor = torch.full((2,), float(number))
            alive[number] = tensor
            assert set(alive) <= {number - 1, number}
            yield f"t{number}", tensor

    read = load_file(write_tensors(tmp_path, tensors()))
    assert [read[f"t{number}"].tolist() for number in range(5)] == [[n, n] for n in range(5)]


def test_a_disk_that_is_full_names_the_remedy(tmp_path):
    with pytest.raises(OSError, match=r"room for the mean weights twice.*set TMPDIR to a larger"):
        write_tensors(tmp_path / "missing", [("w", W)])


def test_a_truncated_member_is_refused(tmp_path):
    whole = by_hand(tmp_path / "a", {"w": W})
    cut = by_hand(tmp_path / "b", {"w": W + 1})
    path = cut / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"expected a whole safetensors file, .*train this member"):
        averaged(tmp_path, whole, cut)


W = torch.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({"w": torch.ones(3)}, {}, r"with w as F32 \[2\], found F32 \[3\]"),
        ({"v": W}, {}, r"with v as no tensor, found F32 \[2\]"),
        ({}, {}, r"with w as F32 \[2\], found no tensor"),
        ({"w": torch.tensor([1, 2])}, {}, r"with w as F32 \[2\], found I64 \[2\]"),
        ({"w": W}, {"heads": 4}, r"found another heads; average seeds of one recipe"),
        ({"w": W}, {"labels": 1}, r"found another labels"),
    ],
)
def test_another_architecture_is_refused(tmp_path, tensors, config, message):
    one = by_hand(tmp_path / "a", {"w": W})
    two = by_hand(tmp_path / "b", tensors, **config)
    salts = (n for n in range(99) if Folder(one, n).digest < Folder(two, n).digest)
    salt = next(salts)  # the error is told from the point of view of the lowest digest
    builder = Builder(Store(str(tmp_path / "storage")))
    with pytest.raises(ValueError, match=message):
        builder.get(AveragedWeights((Folder(one, salt), Folder(two, salt))))
    assert not list((tmp_path / "storage").glob("checkpoint/mean-*/manifest.json"))


def test_other_integers_and_another_tokenizer_are_refused(tmp_path):
    ids = {"ids": torch.tensor([0, 1])}
    one = by_hand(tmp_path / "a", ids)
    two = by_hand(tmp_path / "b", {"ids": torch.tensor([0, 2])})
    with pytest.raises(ValueError, match=r"ids: expected equal torch\.int64 values"):
        averaged(tmp_path / "integers", one, two)
    three = by_hand(tmp_path / "c", ids)
    (three / "tokenizer.json").write_text('{"words": 2}')
    with pytest.raises(ValueError, match=r"expected the tokenizer of .*another tokenizer\.json"):
        averaged(tmp_path / "tokenizer", one, three)
    four = by_hand(tmp_path / "d", ids)
    (four / "vocab.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"another vocab\.txt"):
        averaged(tmp_path / "more", one, four)


@pytest.mark.parametrize("count", [1, 2])
def test_one_checkpoint_is_no_ensemble(tmp_path, count):
    with pytest.raises(ValueError, match=f"two different checkpoints, found {count} of which 1"):
        AveragedWeights((Folder(tmp_path),) * count)


def test_a_mean_of_similarity_heads_opens(tmp_path, tiny_backbone):
    folders = []
    for scale in (5.0, 15.0):
        model = CrossEncoder(backbone=str(tiny_backbone), head="similarity").load(
            tiny_backbone, 1, training=False, device="cpu"
        )
        with torch.no_grad():
            model.classifier.weight.fill_(scale)
        folders.append(tmp_path / f"{scale}")
        save(model, folders[-1], tiny_backbone, LENGTH)
    folder = averaged(tmp_path, *folders).local()
    opened = CrossEncoder(backbone=str(folder)).load(folder, 1, training=False, device="cpu")
    assert float(opened.classifier.weight) == 10.0
    assert (folder / "raypipe_similarity.py").is_file()
