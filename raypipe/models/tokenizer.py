"""The tokenizer of a model, opened so that every text stays text, and what is asked of it.

transformers splits special-token strings in texts where it is told to, and that is enough for
WordPiece and byte-level BPE. A Unigram vocabulary (DeBERTa-v3, XLM-R) has "[SEP]" or "<s>" as
pieces of their own, with the best score of all, and so finds them in texts by itself.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from raypipe.config import ConfigError
from raypipe.storage.attempts import is_note

NEVER = -1e4
"""Score of a piece that no text is cut into: any other pieces together have a better one."""
_UNKNOWN = "\ufdd0"
"""Stands for a character that no piece has: Unicode gives it to nobody."""


def opened_tokenizer(folder: Path, **options: Any) -> Any:
    """What transformers makes of the folder's tokenizer, fast or slow.

    Raises:
        ConfigError: no tokenizer can be loaded.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    except Exception as error:  # the readers of vocabularies raise what they like
        words = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"no tokenizer can be loaded from {folder}: {words}; copy the tokenizer's files again, "
            "best with a tokenizer.json"
        ) from None


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a model's directory; special-token strings inside texts stay text.

    Raises:
        ConfigError: no tokenizer can be loaded, or it has no fast version.
    """
    tokenizer = opened_tokenizer(folder, use_fast=True, split_special_tokens=True)
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigError(
            f"the tokenizer in {folder}, {type(tokenizer).__name__}, has no fast version "
            "(tokenizer.json), which tells where each text begins and ends; take a model that has "
            "one, or convert it"
        )
    _keep_texts(tokenizer)
    return tokenizer


def copy_tokenizer(start: Path, folder: Path) -> None:
    """Copy what lies beside a model's weights and configuration: the tokenizer's files.

    Args:
        start: the directory that the model was read from.
    """
    for path in start.glob("*"):
        is_model = path.suffix in (".safetensors", ".py") or path.name.endswith("index.json")
        known = {"config.json", "modules.json", "README.md", "config_sentence_transformers.json"}
        left_out = is_model or is_note(path.name) or path.name in known
        if path.is_file() and not left_out:
            if path.name.startswith("sentence_") or path.name == "data_config.json":
                continue  # a bi-encoder's own settings would mislead who opens this directory
            shutil.copy(path, folder / path.name)


def write_tokenizer(folder: Path, max_length: int) -> None:
    """Change the tokenizer's files in a model's directory: a length limit, and texts stay texts.

    Args:
        folder: holds the files as the backbone has them.
        max_length: tokens per pair, at which the written tokenizer cuts.
    """
    path = folder / "tokenizer_config.json"
    settings: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    settings |= {"model_max_length": max_length, "split_special_tokens": True}
    tokenizer = load_tokenizer(folder)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    if is_unigram(content):
        content |= {"truncation": None, "padding": None}
        (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), "utf-8")
        if _UNKNOWN in json.dumps(content["normalizer"], ensure_ascii=False):
            # a class of its own family would make its own normalizer again
            settings["tokenizer_class"] = "PreTrainedTokenizerFast"
            settings["model_input_names"] = tokenizer.model_input_names
    path.write_text(json.dumps(settings, indent=1))


def is_unigram(content: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json has scored pieces; early ones do not name their model's type."""
    model = content.get("model")
    return isinstance(model, dict) and isinstance(model.get("vocab"), list)


def _keep_texts(tokenizer: Any) -> None:
    """Let a Unigram vocabulary find no special token in any text."""
    from tokenizers import Tokenizer

    content = json.loads(tokenizer.backend_tokenizer.to_str())
    if not is_unigram(content):
        return
    pieces: list[list[Any]] = content["model"]["vocab"]
    special = _special_strings(tokenizer)
    for piece in pieces:
        if piece[0] in special:
            piece[1] = NEVER
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))
    _replace_unknown(tokenizer.backend_tokenizer, {str(piece) for piece, _ in pieces}, special)


def _replace_unknown(backend: Any, pieces: Collection[str], special: Collection[str]) -> None:
    """Take unknown characters out of special-token strings in texts.

    A character that is no piece costs more than a piece that has the lowest score, so that the
    special token would be found yet.
    """
    from tokenizers import normalizers

    steps = [] if backend.normalizer is None else [backend.normalizer]
    for text in sorted({*special} & {*pieces}):
        spelled = "".join(letter if letter in pieces else _UNKNOWN for letter in text)
        if spelled != text:
            steps.append(normalizers.Replace(text, spelled))
    if len(steps) > (backend.normalizer is not None):
        backend.normalizer = normalizers.Sequence(steps)


def _special_strings(tokenizer: Any) -> set[str]:
    marked = tokenizer.added_tokens_decoder.values()
    return {*tokenizer.all_special_tokens, *(str(token) for token in marked if token.special)}


def check_texts(tokenizer: Any, where: str) -> None:
    """Refuse a tokenizer that finds special tokens in texts.

    Args:
        where: the model, such as "model.backbone X".

    Raises:
        ConfigError: a special token's string, alone or between words, gives the token.
    """
    strings = sorted(_special_strings(tokenizer))
    ids = {tokenizer.convert_tokens_to_ids(text) for text in strings} - {tokenizer.unk_token_id}
    texts = [text for string in strings for text in (string, f"a {string} b", f"a{string}b")]
    try:
        found = tokenizer([*texts, "a é 中 \U0001f600"], add_special_tokens=False)["input_ids"]
    except Exception as error:  # of the Rust library
        raise ConfigError(
            f"{where}: the tokenizer, {type(tokenizer).__name__}, cannot read some texts: {error}; "
            "give tokenizer and vocabulary of one model"
        ) from None
    for text, row in zip(texts, found, strict=False):
        if wrong := ids & {*row}:
            raise ConfigError(
                f"{where}: the tokenizer, {type(tokenizer).__name__}, reads {text!r} in a text as "
                f"its special token {tokenizer.convert_ids_to_tokens(min(wrong))!r}, so documents "
                "could end or blank their own input; give a model with another tokenizer"
            )


def check_pairs(tokenizer: Any, where: str) -> None:
    """Refuse a tokenizer that gives a query and a document as one text.

    Args:
        where: the model, such as "model.backbone X".

    Raises:
        ConfigError: no token stands between the two.
    """
    sides = tokenizer("a", "b").sequence_ids(0)
    if 0 not in sides or 1 not in sides:
        raise ConfigError(
            f"{where}: the tokenizer, {type(tokenizer).__name__}, gives the letters a and b no "
            "tokens; copy the tokenizer's files again"
        )
    last, first = len(sides) - 1 - sides[::-1].index(0), sides.index(1)
    if first == last + 1:
        raise ConfigError(
            f"{where}: the tokenizer, {type(tokenizer).__name__}, puts nothing between query and "
            "document, so that the model could not tell where one ends; give a cross-encoder whose "
            "tokenizer.json has a template for pairs (post_processor)"
        )
