"""Checkpoints as MLflow models."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

_WEIGHTLESS = {".json", ".txt", ".model", ".jinja"}  # tokenizer and config files


def save_pyfunc(
    target: Path,
    checkpoint: Path,
    run_id: str = "",
    logged: Any = None,
    interpolation: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint as an MLflow model: code, requirements, Hugging Face files.

    A model that is mixed with its first stage takes the first stage's scores as a column.

    Args:
        target: the folder to make; `mlflow.pyfunc.load_model` opens it.
        checkpoint: a Hugging Face directory; trainer state in it is left out.
        run_id: the id of the tracked run that the checkpoint came from.
        logged: the logged model that the checkpoint becomes; None outside a run, and for a folder
            of the run's artifacts.
        interpolation: what the model is mixed with; None is what its config.json says.
    """
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema

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
        kept.mkdir()
        for file in checkpoint.iterdir():
            if file.suffix == ".safetensors" or file.suffix in _WEIGHTLESS:
                _link(file, kept / file.name)
        columns = _columns(kept / "config.json", interpolation)
        of_text = _text_columns(kept / "config.json")
        inputs = [ColSpec("string", "query"), ColSpec("string", "text", required=not of_text)]
        inputs += [ColSpec("string", name, required=False) for name in of_text]
        inputs += [ColSpec("double", name) for name in columns]
        inputs.append(ColSpec("string", "doc_id", required=False))
        code = Path(scratch) / "pyfunc.py"  # MLflow copies it with its mode, which may be open
        shutil.copyfile(Path(__file__).with_name("pyfunc.py"), code)
        mlflow.pyfunc.save_model(
            path=str(target),
            mlflow_model=Model(**ids),
            python_model=str(code),
            artifacts={"checkpoint": str(kept)},
            code_paths=_code(kept, Path(scratch)),
            signature=ModelSignature(Schema(inputs), Schema([ColSpec("float", "score")])),
            pip_requirements=[f"{p}=={_version(p)}" for p in packages],
        )


def _version(package: str) -> str:
    """Of mlflow the version that mlflow-skinny has too, which may be all that is installed."""
    return version("mlflow-skinny" if package == "mlflow" else package).partition("+")[0]


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
