"""Files of a model that cannot be used, found before work: cut off, pointers, NaN, ids too large.

Headers of safetensors files tell shapes and lengths. The weights themselves are read once per
machine, to look for NaN.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError
from raypipe.storage.files import file_checksum, home

_POINTER = b"version https://git-lfs"
_EMBEDDING = re.compile(r"(word_embeddings|embed_tokens|tok_embeddings|wte|shared)\.weight$")
_INDEX = "model.safetensors.index.json"
_NO_VOCABULARY = (".safetensors", "index.json", "config.json", "modules.json")
"""How the names of files end without which a folder has no tokenizer to compare with."""
_SHOWN = 3
LONGEST_HEADER = 100_000_000
"""Bytes of a safetensors header, by its specification."""


def check_sound(folder: Path, names: Collection[str], where: str) -> None:
    """Refuse a model's folder with a file that cannot be what its name says.

    Args:
        names: of the folder's files that are used.
        where: the model, such as "backbone X"; errors begin with it.

    Raises:
        ConfigError: a file is a Git LFS pointer, is cut off or no JSON; weights are missing or NaN;
            the tokenizer has ids that the embedding does not have.
    """
    read: dict[str, Any] = {}
    headers: dict[Path, Mapping[str, Any]] = {}
    for name in names:
        path = folder / name
        check_no_pointer(path, where)
        if path.suffix == ".json":
            read[name] = _json(path, where)
        elif path.suffix == ".safetensors":
            headers[path] = _header(path, where)
    for shard in sorted(set(read.get(_INDEX, {}).get("weight_map", {}).values())):
        if folder / shard not in headers:
            raise ConfigError(
                f"{where}: {_INDEX} names {shard}, which is not in {folder}; copy the model again"
            )
    if any(not name.endswith(_NO_VOCABULARY) for name in names):
        _check_ids(folder, read, headers.values(), where)
    for path in headers:
        _check_no_nan(path, where)


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
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{where}: expected JSON in {path}, found {path.stat().st_size} bytes that are none "
            f"({error}); copy the file again"
        ) from None


def _header(path: Path, where: str) -> Mapping[str, Any]:
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
    first, end = entry["data_offsets"]
    return int(first), int(end)


def _check_ids(
    folder: Path, read: Mapping[str, Any], headers: Iterable[Mapping[str, Any]], where: str
) -> None:
    """Refuse a tokenizer whose ids the embedding does not have."""
    ids, rows = _ids(folder, read, where), _rows(read, headers)
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


def _ids(folder: Path, read: Mapping[str, Any], where: str) -> int:
    """The highest token id plus 1.

    Raises:
        ConfigError: no tokenizer can be loaded.
    """
    added = [int(i) for i in read.get("tokenizer_config.json", {}).get("added_tokens_decoder", {})]
    if (tokenizer := read.get("tokenizer.json")) is not None:
        vocabulary = tokenizer.get("model", {}).get("vocab", {})
        own = vocabulary.values() if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
        added += [token["id"] for token in tokenizer.get("added_tokens", [])]
        return max([*own, *added], default=-1) + 1
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the readers of vocabularies raise what they like
        words = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"{where}: no tokenizer can be loaded from {folder}: {words}; copy the tokenizer's "
            "files again, best with a tokenizer.json"
        ) from None
    return max([*loaded.get_vocab().values(), *added], default=-1) + 1


def _check_no_nan(path: Path, where: str) -> None:
    """Read the weights, unless this machine has; remember by content that none is NaN."""
    memo = home() / "cache" / "without-nan" / file_checksum(path)
    if memo.is_file():
        return
    from safetensors import safe_open

    wrong = []
    with safe_open(path, "pt") as file:
        for name in list(file.keys()):
            weight = file.get_tensor(name)
            if weight.is_floating_point() and weight.float().isnan().any():
                wrong.append(name)
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise ConfigError(
            f"{where}: NaN in {len(wrong)} weights of {path}: {', '.join(wrong[:_SHOWN])}{more}; "
            "the training that wrote it has diverged, give another checkpoint"
        )
    with contextlib.suppress(OSError):  # a home that cannot be written only costs time
        memo.parent.mkdir(parents=True, exist_ok=True)
        memo.touch()
