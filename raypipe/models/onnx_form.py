"""A cross-encoder as one ONNX file: tokenised pairs in, a float32 score each out.

The tokenizer beside it needs neither torch nor transformers: the library `tokenizers` opens it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raypipe.config import ConfigError
from raypipe.models.tokenizer import load_tokenizer

MODEL_FILE = "model.onnx"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""int64, [batch, length]; the last one only where the family has token types."""
LARGEST_DIFFERENCE = 1e-4
"""Of a score under onnxruntime from the model's own."""
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_ONE_FILE = 1_800_000_000
"""Bytes of weights above which they stand beside the file: protobuf ends at 2 GiB."""


def check_packages() -> None:
    """Refuse where what writes and runs ONNX is not installed.

    Raises:
        ConfigError: a package of the extra `onnx` is missing.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--form onnx: {', '.join(missing)} not installed; pip install 'raypipe[onnx]'"
        )


def write_onnx(
    model: nn.Module,
    tokenizer_folder: Path,
    folder: Path,
    max_length: int,
    pairs: Sequence[tuple[str, str]],
) -> float:
    """Write model.onnx and tokenizer.json, and score pairs with both ways to run the model.

    Batch and length are free axes: "batch" and "length" in the file.

    Args:
        model: in float32 on the CPU, in evaluation mode; gives `logits` [pairs, 1].
        folder: exists.
        max_length: tokens per pair, at which the written tokenizer cuts.
        pairs: (query, document), at least two, on which the file is tried.

    Returns:
        The largest difference between a score of the file and one of the model.

    Raises:
        ConfigError: the exporter cannot express the model, or the scores differ.
    """
    tokenizer = load_tokenizer(tokenizer_folder)
    names = [name for name in INPUTS if name in tokenizer.model_input_names]
    limits = {"truncation": True, "max_length": max_length, "padding": True, "verbose": False}
    inputs_BL = tokenizer(*map(list, zip(*pairs, strict=True)), return_tensors="pt", **limits)
    _export(_PairScores(model, names).eval(), [inputs_BL[name] for name in names], names, folder)
    _write_tokenizer(tokenizer, folder / "tokenizer.json", max_length)
    with torch.inference_mode():
        expected_B = model(**{name: inputs_BL[name] for name in names}).logits[:, 0].numpy()
    found_B = _scores(folder / MODEL_FILE, {name: inputs_BL[name].numpy() for name in names})
    difference = float(np.abs(found_B - expected_B).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise ConfigError(
            f"--form onnx: expected the model's scores to {LARGEST_DIFFERENCE:g}, found scores "
            f"that differ by {difference:g}; export the form transformers"
        )
    return difference


class _PairScores(nn.Module):
    """The model with its inputs in order and its scores as the only output."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *inputs_BL: Tensor) -> Tensor:
        scores_B: Tensor = self.model(**dict(zip(self.names, inputs_BL, strict=True))).logits[:, 0]
        return scores_B


def _export(score: nn.Module, inputs_BL: list[Tensor], names: list[str], folder: Path) -> None:
    size = sum(p.numel() * p.element_size() for p in score.parameters())
    try:
        with _silent():
            torch.onnx.export(
                score,
                tuple(inputs_BL),
                str(folder / MODEL_FILE),
                input_names=names,
                output_names=["score"],
                dynamic_shapes=(tuple({0: "batch", 1: "length"} for _ in names),),
                dynamo=True,
                external_data=size > _ONE_FILE,
                verbose=False,
            )
    except Exception as error:  # the exporter's own of many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"--form onnx: torch cannot express this model in ONNX ({reason[:200]}); export the "
            "form transformers"
        ) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the exporter's remarks on libraries and operators that no cross-encoder uses."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _write_tokenizer(tokenizer: Any, path: Path, max_length: int) -> None:
    """The tokenizer with its limit and its padding, as `Tokenizer.from_file` opens it.

    That special tokens in texts are text is no part of the format: who opens the file sets
    `encode_special_tokens`, as the card's lines do.
    """
    from tokenizers import Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.enable_truncation(max_length, strategy="longest_first")
    backend.enable_padding(
        pad_id=tokenizer.pad_token_id or 0,
        pad_type_id=tokenizer.pad_token_type_id,
        pad_token=tokenizer.pad_token or "",
    )
    content = json.loads(backend.to_str())
    path.write_text(json.dumps(content, ensure_ascii=False), "utf-8")


def _scores(path: Path, inputs_BL: dict[str, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    scores_B: np.ndarray[Any, Any] = session.run(["score"], inputs_BL)[0]
    return scores_B
