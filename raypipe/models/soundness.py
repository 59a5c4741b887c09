"""Files of a model that cannot be used, found before work: cut off, pointers, NaN, ids too large.

Headers of safetensors files tell shapes and lengths. The weights themselves are read once per
machine, to look for NaN and infinity.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError, blamed_on
from raypipe.models.tokenizer import opened_tokenizer
from raypipe.storage.files import file_checksum, home, note_once

_POINTER = b"version https://git-lfs"
_EMBEDDING = re.compile(r"(word_embeddings|embed_tokens|tok_embeddings|wte|shared)\.weight$")
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_VOCABULARY = re.compile(
    r"vocab|tekken\.json$|\.(model|spm|bpe|codes|tiktoken|tokenizer)$", re.IGNORECASE
)
"""What the names of files have that can hold a vocabulary where there is no tokenizer.json."""
_SHOWN = 3
LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors header, by its specification."""


def check_sound(folder: Path, names: Collection[str], where: str) -> None:
    """Refuse a model's folder with a file that cannot be what its name says.

    Args:
        names: of the folder's files that are used.
        where: the model, such as "backbone X"; errors begin with it.

    Raises:
        ConfigError: a file is a Git LFS pointer, is cut off or damaged; weights are missing,
            integers, NaN or infinite; there is no tokenizer, or it has ids that the embedding does
            not have.
    """
    for name in names:
        check_no_pointer(folder / name, where)
    read = {name: _json(folder / name, where) for name in names if name.endswith(".json")}
    paths = [folder / name for name in names if name.endswith(".safetensors")]
    headers = [header(path, where) for path in paths]
    check_no_adapter(names, str(folder), where)
    _check_shards(folder, read, names, where)
    check_has_tokenizer(names, str(folder), where)
    _check_ids(folder, read, headers, where)
    if not read["config.json"].get("quantization_config"):
        for path, names_of in zip(paths, headers, strict=True):
            _check_floating(path, names_of, where)
    for path in paths:
        _check_finite(path, where)


def check_has_tokenizer(names: Collection[str], place: str, where: str) -> None:
    """Refuse a model's files without a tokenizer, which transformers would make up.

    Args:
        place: the folder or hub that has the files, in words.

    Raises:
        ConfigError: there is no tokenizer.json and no vocabulary.
    """
    if "tokenizer.json" in names or any(_VOCABULARY.search(Path(name).name) for name in names):
        return
    raise ConfigError(
        f"{where}: no tokenizer in {place}: expected tokenizer.json or a vocabulary file "
        f"(vocab.txt, vocab.json, spm.model, ...), found {', '.join(sorted(names))}; save the "
        "tokenizer there too"
    )


def check_no_adapter(names: Collection[str], place: str, where: str) -> None:
    """Refuse an adapter (LoRA and the like), which is no model without its base.

    Args:
        place: the folder or hub that has the files, in words.

    Raises:
        ConfigError: there are an adapter's files.
    """
    found = sorted({"adapter_config.json", "adapter_model.safetensors"} & {*names})
    if found:
        raise ConfigError(
            f"{where}: expected a whole model in {place}, found an adapter ({', '.join(found)}), "
            "which changes a base model that stands elsewhere; merge the two (peft: "
            "merge_and_unload), save the merged model with its tokenizer, and give that folder"
        )


def _check_shards(
    folder: Path, read: Mapping[str, Any], names: Collection[str], where: str
) -> None:
    """Refuse weights in several files of which one is missing, or the list of them."""
    if (index := read.get(_INDEX)) is None:
        shards = [name for name in names if _SHARD.fullmatch(name)]
        if shards and "model.safetensors" not in names:
            raise ConfigError(
                f"{where}: expected {_INDEX} in {folder} beside {', '.join(shards[:_SHOWN])}, "
                "found none; copy the model again"
            )
        if "model.safetensors" not in names:
            others = [name for name in names if "/" not in name and name.endswith(".safetensors")]
            raise ConfigError(
                f"{where}: expected weights in model.safetensors in {folder}, found "
                f"{', '.join(others[:_SHOWN])}, which transformers does not read; save the model "
                "again with save_pretrained"
            )
        return
    with _refused(folder / _INDEX, "names of files by weight", where):
        absent = sorted({str(Path(shard)) for shard in index["weight_map"].values()} - {*names})
    if absent:
        raise ConfigError(
            f"{where}: {_INDEX} names {absent[0]}, which is not in {folder}; copy the model again"
        )


@contextlib.contextmanager
def _refused(path: Path, expected: str, where: str) -> Iterator[None]:
    """Turn what readers raise of a damaged file into a sentence.

    Args:
        expected: what the file should have, in words.

    Raises:
        ConfigError: the reader raised.
    """
    from safetensors import SafetensorError

    damage = (AttributeError, TypeError, KeyError, ValueError, RecursionError, SafetensorError)
    try:
        yield
    except ConfigError:
        raise
    except (*damage, OSError) as error:
        words = (str(error) or "no more words").splitlines()[0]
        raise ConfigError(
            f"{where}: expected {expected} in {path}, found {path.stat().st_size} bytes that are "
            f"none ({type(error).__name__}: {words}): it is damaged; copy it again"
        ) from None


def check_no_pointer(path: Path, where: str) -> None:
    """Refuse a file that git put there in place of a large one.

    Raises:
        ConfigError: it is a Git LFS pointer.
    """
    with path.open("rb") as file:
        pointer = file.read(len(_POINTER)) == _POINTER
    if pointer:
        raise ConfigError(
            f"{where}: {path} is a Git LFS pointer, not the file itself; run `git lfs pull` there, "
            "or fetch the model again"
        )


def _json(path: Path, where: str) -> Any:
    with _refused(path, "JSON", where):
        return json.loads(path.read_bytes())


def header(path: Path, where: str) -> Mapping[str, Any]:
    """By weight: dtype, shape and data_offsets.

    Raises:
        ConfigError: the file's length is not that of its weights.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= min(size - 8, LONGEST_HEADER) else b""
    try:
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        expected = 8 + length + max((end for _, end in map(_bounds, header.values())), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ConfigError(
            f"{where}: expected a safetensors file, found {size} bytes without its header in "
            f"{path}: it is damaged or was not written to its end; copy or save it again"
        ) from None
    if expected != size:
        raise ConfigError(
            f"{where}: expected {expected:,} bytes in {path}, found {size:,}: it is damaged or was "
            "not written to its end; copy or save it again"
        )
    return header


def _bounds(entry: Mapping[str, Any]) -> tuple[int, int]:
    if not all(isinstance(length, int) for length in entry["shape"]):
        raise TypeError("a shape that is none")
    first, end = entry["data_offsets"]
    return int(first), int(end)


def _check_ids(
    folder: Path, read: Mapping[str, Any], headers: Iterable[Mapping[str, Any]], where: str
) -> None:
    """Refuse a tokenizer whose ids the embedding does not have."""
    with _refused(folder / "tokenizer_config.json", "an object of settings by name", where):
        tokens = read.get("tokenizer_config.json", {}).get("added_tokens_decoder", {})
        added = [int(number) for number, _ in tokens.items()]
    with _refused(folder / "config.json", "an object of settings by name", where):
        rows = _rows(read, headers)
    ids = max([*_ids(folder, read, where), *added], default=-1) + 1
    if not ids:
        raise ConfigError(
            f"{where}: the tokenizer in {folder} has no tokens; copy the tokenizer's files again"
        )
    if rows is not None and ids > rows:
        raise ConfigError(
            f"{where}: the tokenizer has ids up to {ids - 1}, the embedding rows for {rows}: they "
            "belong to different models, or tokens were added without resize_token_embeddings; "
            "give tokenizer and weights of one model"
        )


def _rows(read: Mapping[str, Any], headers: Iterable[Mapping[str, Any]]) -> int | None:
    """Rows of the token embedding; where no weight is known as such, what config.json says."""
    for header in headers:
        for name, entry in header.items():
            if _EMBEDDING.search(name) and len(entry["shape"]) == 2:
                return int(entry["shape"][0])
    size = read["config.json"].get("vocab_size")
    return size if isinstance(size, int) else None


def _ids(folder: Path, read: Mapping[str, Any], where: str) -> list[int]:
    """The ids of the tokenizer's own tokens.

    Raises:
        ConfigError: no tokenizer can be loaded.
    """
    if "tokenizer.json" in read:
        with _refused(folder / "tokenizer.json", "a tokenizer", where):
            tokenizer = read["tokenizer.json"]
            vocabulary = tokenizer["model"]["vocab"]
            listed = isinstance(vocabulary, list)
            own = [len(vocabulary) - 1] if listed else list(vocabulary.values())
            own += [token["id"] for token in tokenizer["added_tokens"]]
            if not all(isinstance(number, int) for number in own):
                raise TypeError("an id that is no integer")
            return own
    with blamed_on(where):
        return list(opened_tokenizer(folder).get_vocab().values())


def _check_floating(path: Path, entries: Mapping[str, Any], where: str) -> None:
    """Refuse weights in integers, which transformers takes for numbers of their own."""
    for name, entry in entries.items():
        kind = str(entry.get("dtype"))
        if name.endswith("weight") and kind[:1] in "IU":
            raise ConfigError(
                f"{where}: expected weights in floating point, found {kind} in {path}: {name}: "
                "they are quantised, and config.json does not say how; give the model that they "
                "were made from"
            )


def _check_finite(path: Path, where: str) -> None:
    """Read the weights, unless this machine has; remember by content that all are numbers."""
    memo = home() / "cache" / "finite-weights" / file_checksum(path)
    if memo.is_file():
        return
    from safetensors import safe_open

    wrong = []
    with _refused(path, "weights", where), safe_open(path, "pt") as file:
        for name in list(file.keys()):
            weight = file.get_tensor(name)
            if weight.is_floating_point() and not weight.float().isfinite().all():
                wrong.append(name)
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ConfigError(
            f"{where}: NaN or infinity in {len(wrong)} weights of {path}: "
            f"{', '.join(wrong[:_SHOWN])}{more}; the training that wrote it has diverged, give "
            "another checkpoint"
        )
    note_once(memo)
