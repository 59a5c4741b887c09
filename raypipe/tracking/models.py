"""Checkpoints as MLflow models: cross-encoders score pairs, bi-encoders give vectors."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_WEIGHTLESS = {".json", ".txt", ".model", ".jinja"}  # tokenizer and config files
_POOLING = "1_Pooling/config.json"
"""What bi-encoders have beside their transformer, and cross-encoders do not."""
_MODULE = re.compile(r"\d+_\w+")
"""Folders of sentence-transformers' modules."""


def save_pyfunc(
    target: Path,
    checkpoint: Path,
    run_id: str = "",
    logged: Any = None,
    interpolation: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint as an MLflow model: code, requirements, Hugging Face files.

    A model that is mixed with its first stage takes the first stage's scores as a column. A
    bi-encoder takes texts, and whether each is a query or a document, and gives vectors.

    Args:
        target: the folder to make; `mlflow.pyfunc.load_model` opens it.
        checkpoint: a Hugging Face directory; trainer state in it is left out.
        run_id: the id of the tracked run that the checkpoint came from.
        logged: the logged model that the checkpoint becomes; None outside a run, and for a folder
            of the run's artifacts.
        interpolation: what the model is mixed with; None is what its config.json says.
    """
    import mlflow.pyfunc
    from mlflow.models import Model

    packages = ["mlflow", "pandas", "safetensors", "torch", "transformers"]
    ids: dict[str, Any] = {"artifact_path": target.name, "run_id": run_id} if run_id else {}
    if logged is not None:
        ids = {
            "artifact_path": logged.artifact_location,
            "model_uuid": logged.model_id,
            "model_id": logged.model_id,
            "run_id": run_id,
        }
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*input example", UserWarning)  # the schema is enough
        kept = Path(scratch) / "checkpoint"
        _copy_files(checkpoint, kept)
        vectors = (kept / _POOLING).is_file()
        if vectors:
            packages.append("sentence-transformers")
        signature = _of_texts() if vectors else _of_pairs(kept / "config.json", interpolation)
        code = Path(scratch) / "pyfunc.py"  # MLflow copies it with its mode, which may be open
        own = "vectors_pyfunc.py" if vectors else "pyfunc.py"
        shutil.copyfile(Path(__file__).with_name(own), code)
        mlflow.pyfunc.save_model(
            path=str(target),
            mlflow_model=Model(**ids),
            python_model=str(code),
            artifacts={"checkpoint": str(kept)},
            code_paths=_code(kept, Path(scratch)),
            signature=signature,
            pip_requirements=[_requirement(package) for package in packages],
        )


def _copy_files(checkpoint: Path, kept: Path) -> None:
    """Link the files of a Hugging Face directory, and of the folders of its modules."""
    kept.mkdir()
    for file in checkpoint.iterdir():
        if file.suffix == ".safetensors" or file.suffix in _WEIGHTLESS:
            _link(file, kept / file.name)
        elif file.is_dir() and _MODULE.fullmatch(file.name):
            _copy_files(file, kept / file.name)


def _of_pairs(config: Path, interpolation: Mapping[str, Any] | None) -> Any:
    """The signature of a cross-encoder, whose config.json is told what it is mixed with."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    columns, of_text = _columns(config, interpolation), _text_columns(config)
    inputs = [ColSpec("string", "query"), ColSpec("string", "text", required=not of_text)]
    inputs += [ColSpec("string", name, required=False) for name in of_text]
    inputs += [ColSpec("double", name) for name in columns]
    inputs.append(ColSpec("string", "doc_id", required=False))
    return ModelSignature(Schema(inputs), Schema([ColSpec("float", "score")]))


def _of_texts() -> Any:
    """The signature of a bi-encoder."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    inputs = [ColSpec("string", "text"), ColSpec("string", "side", required=False)]
    return ModelSignature(Schema(inputs), Schema([ColSpec(Array(DataType.float), "vector")]))


def _requirement(package: str) -> str:
    """The installed version; of mlflow the one that mlflow-skinny has too, which may be all that is
    installed. sentence-transformers need not be there."""
    try:
        found = version("mlflow-skinny" if package == "mlflow" else package)
    except PackageNotFoundError:
        return f"{package}>=5"
    return f"{package}=={found.partition('+')[0]}"


def write_interpolation(path: Path, interpolation: Mapping[str, Any]) -> None:
    """Say in a config.json what the model is mixed with; the file is replaced, links to it stay."""
    config = json.loads(path.read_text("utf-8"))
    config["raypipe"] = {**(config.get("raypipe") or {}), "interpolation": dict(interpolation)}
    path.unlink()
    path.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _columns(path: Path, interpolation: Mapping[str, Any] | None) -> list[str]:
    """The columns of scores that the model of this config.json needs, after it is told."""
    if interpolation is not None:
        write_interpolation(path, interpolation)
    said = (json.loads(path.read_text("utf-8")).get("raypipe") or {}).get("interpolation") or {}
    return list(said.get("columns", ()))


def _text_columns(path: Path) -> list[str]:
    """The columns that a text may be made of, by the model's config.json, beside text itself."""
    said = json.loads(path.read_text("utf-8")).get("raypipe") or {}
    names = dict.fromkeys(re.findall(r"\{([^{}]*)\}", said.get("text") or ""))
    return [name for name in names if name not in ("query", "text", "doc_id")]


def _code(checkpoint: Path, scratch: Path) -> list[str] | None:
    """raypipe's own code of a similarity head, under the model's type; other models need none."""
    kind = json.loads((checkpoint / "config.json").read_text())["model_type"]
    if kind != "raypipe_similarity":
        return None
    code = scratch / f"{kind}.py"
    shutil.copyfile(Path(__file__).parents[1] / "models" / "similarity.py", code)
    return [str(code)]


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another filesystem
        shutil.copyfile(source, target)
