"""What sentence-transformers saves beside a transformer: pooling, dense layers, norms, prompts.

`modules.json` names the modules in their order, each with a folder of its own. Those that change a
vector and are known here become a `torch` module; a model with any other is refused by its name.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from torch import nn

from raypipe.config import ConfigError
from raypipe.models.pooling import Mode
from raypipe.names import quoted

FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Keys of files of sentence-transformers 2 to 5, in the order in which vectors are joined."""
_POOLING = "1_Pooling"
_FOLDER = re.compile(r"\d_(Dense|LayerNorm)")
"""Folders of weights as sentence-transformers names them: these alone go into the store."""
_VECTOR = "sentence_embedding"
_ACTIVATIONS = "torch.nn.modules."
Read = Callable[[str], Any]
"""Gives a JSON file of a model by its name, None where there is none."""


@dataclass(frozen=True)
class Layer:
    """A module after the pooling."""

    kind: str
    """Dense, LayerNorm or Normalize."""
    path: str
    """Its folder below the model's."""
    settings: Mapping[str, Any]


UNIT_VECTORS = Layer("Normalize", "", {})


@dataclass(frozen=True)
class SentenceModules:
    """The modules of one folder, as far as they are known."""

    pooling: tuple[Mode, ...]
    """Several are joined to one vector."""
    layers: tuple[Layer, ...]
    prompts: Mapping[str, str]
    """What stands before texts: `query`, `document`; others serve other tasks."""
    lowers: bool = False
    """Texts are lower-cased before the tokenizer reads them."""

    @property
    def normalizes(self) -> bool:
        """Whether vectors end as unit vectors."""
        return bool(self.layers) and self.layers[-1].kind == "Normalize"

    @property
    def plain(self) -> bool:
        """Whether a mean or the first token, at most normalised, is all."""
        return self.pooling in (("mean",), ("cls",)) and not self.weighted

    @property
    def weighted(self) -> tuple[Layer, ...]:
        """The layers but for a normalisation at the end."""
        return self.layers[:-1] if self.normalizes else self.layers


def read_modules(read: Read, where: str) -> SentenceModules:
    """The modules of a model; without a `modules.json`, pooling and unit vectors.

    Args:
        where: the model, such as "backbone X"; errors begin with it.

    Raises:
        ConfigError: a module that is not known here, an unusual order, or a damaged file.
    """
    listed = read("modules.json")
    if listed is None:
        pooling = _pooling(_settings(read(f"{_POOLING}/config.json")), _POOLING, where)
        return SentenceModules(pooling, (UNIT_VECTORS,), {})
    try:
        modules = [(str(entry["type"]), str(entry["path"])) for entry in listed]
    except (TypeError, KeyError):
        raise refusal(where, "modules.json", "no list of modules with type and path") from None
    kinds = [_kind(kind, path, where) for kind, path in modules]
    if kinds[:1] != ["Transformer"] or modules[0][1]:
        raise refusal(where, "modules.json", f"{kinds[0] if kinds else 'nothing'} at its start")
    transformer = _settings(read("sentence_bert_config.json"))
    prompts = _prompts(_settings(read("config_sentence_transformers.json")), where)
    if kinds[1:2] != ["Pooling"]:
        raise refusal(where, modules[1][1] if len(modules) > 1 else "", "no pooling of tokens")
    _check_transformer(transformer, where)
    pooling = read(f"{modules[1][1]}/config.json")
    if modules[1][1] != _POOLING or not isinstance(pooling, dict):
        raise refusal(where, modules[1][1], f"a Pooling without {_POOLING}/config.json")
    layers = []
    for kind, (_, path) in zip(kinds[2:], modules[2:], strict=True):
        settings = _settings(read(f"{path}/config.json"))
        _check_layer(kind, path, settings, where)
        if kind != "Dropout":  # nothing is dropped where nothing is trained
            layers.append(Layer(kind, path, settings))
    return SentenceModules(
        _pooling(pooling, _POOLING, where),
        tuple(layers),
        prompts,
        bool(transformer.get("do_lower_case")),
    )


def _prompts(settings: Mapping[str, Any], where: str) -> Mapping[str, str]:
    """The prompts by name, without empty ones.

    Raises:
        ConfigError: they are none, or the model's vectors are not compared whole, by their product.
    """
    name = "config_sentence_transformers.json"
    if settings.get("truncate_dim"):
        raise refusal(where, name, f"vectors cut to truncate_dim={settings['truncate_dim']}")
    if settings.get("similarity_fn_name") in ("euclidean", "manhattan"):
        raise refusal(where, name, f"vectors compared by {settings['similarity_fn_name']} distance")
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(
        text is None or isinstance(text, str) for text in prompts.values()
    ):
        raise refusal(where, name, f"{quoted(prompts, 40)} as prompts, which are texts by name,")
    return {name: text for name, text in prompts.items() if text}


def averages_tokens(read: Read) -> bool:
    """Whether a model is a sentence encoder whose vector is the mean of its tokens' states.

    A model with a trained head of its own is none, nor is one with modules that are not known.
    """
    if read("modules.json") is None:
        return False
    architectures = _settings(read("config.json")).get("architectures") or [""]
    if str(architectures[0]).endswith("ForSequenceClassification"):
        return False
    try:
        modules = read_modules(read, "")
    except ConfigError:
        return False
    return modules.plain and modules.pooling == ("mean",)


def read_score_modules(read: Read, where: str) -> SentenceModules | None:
    """The modules after the transformer that make a cross-encoder's score; None if there are none.

    None too for a bi-encoder's folder, and where the transformer has the score itself.

    Raises:
        ConfigError: see `read_modules`; or a prompt stands before pairs, or the modules do not end
            in one score.
    """
    own = _settings(read("config_sentence_transformers.json"))
    listed = read("modules.json")
    scores = [
        e
        for e in listed or ()
        if _settings(read(f"{e['path']}/config.json")).get("module_output_name") == "scores"
    ]
    if own.get("model_type") != "CrossEncoder" and not scores:
        return None
    if prompt := (own.get("prompts") or {}).get(own.get("default_prompt_name")):
        raise ConfigError(
            f"{where}: sentence-transformers puts {prompt!r} before every pair "
            "(default_prompt_name in config_sentence_transformers.json), which raypipe cannot do; "
            "give a cross-encoder without a prompt"
        )
    task = _settings(read("sentence_bert_config.json")).get("transformer_task")
    if len(listed or ()) < 2 and task in (None, "sequence-classification"):
        return None
    modules = read_modules(read, where)
    last = modules.layers[-1] if modules.layers else None
    if last is None or last.kind != "Dense" or last.settings.get("out_features") != 1:
        raise refusal(where, last.path if last else "", "no Dense module with one score")
    return modules


def own_length(read: Read) -> int | None:
    """Tokens at which sentence-transformers cuts texts, by the model's files; None if none says."""
    limits = [
        _settings(read("sentence_bert_config.json")).get("max_seq_length"),
        _settings(read("tokenizer_config.json")).get("model_max_length"),
    ]
    return next((n for n in limits if isinstance(n, int) and not isinstance(n, bool) and n), None)


def _settings(content: Any) -> Mapping[str, Any]:
    return content if isinstance(content, dict) else {}


def _kind(name: str, path: str, where: str) -> str:
    kind = name.rpartition(".")[2]
    known = ("Transformer", "Pooling", "Dense", "LayerNorm", "Dropout", "Normalize")
    if kind in known and name.startswith("sentence_transformers."):
        return kind
    raise refusal(where, path, f"the module {name}")


def refusal(where: str, path: str, found: str) -> ConfigError:
    place = f"in {path}" if path else "in modules.json"
    return ConfigError(
        f"{where}: expected sentence-transformers' Transformer, then Pooling, then any of Dense, "
        f"LayerNorm and Normalize, found {found} {place}, which raypipe cannot read; without it "
        "the vectors would be others: give another model"
    )


def _check_transformer(settings: Mapping[str, Any], where: str) -> None:
    task = settings.get("transformer_task", "feature-extraction")
    if task != "feature-extraction":
        raise refusal(where, "sentence_bert_config.json", f"the task {task}")
    text = _settings(_settings(settings.get("modality_config")).get("text"))
    reads = text.get("method", "forward"), text.get("method_output_name", "last_hidden_state")
    if reads not in (("forward", "last_hidden_state"), ("forward", ["last_hidden_state"])):
        raise refusal(where, "sentence_bert_config.json", f"token vectors from {' '.join(reads)}")


def _check_layer(kind: str, path: str, settings: Mapping[str, Any], where: str) -> None:
    if kind in ("Transformer", "Pooling"):
        raise refusal(where, path, f"a second {kind}")
    if kind in ("Dense", "LayerNorm") and not _FOLDER.fullmatch(path):
        raise refusal(where, path, f"a {kind} in a folder that is not named N_{kind},")
    outputs = (None, _VECTOR, "scores") if kind == "Dense" else (None, _VECTOR)
    if settings.get("module_input_name") not in (None, _VECTOR):
        raise refusal(where, path, f"{kind} of {settings['module_input_name']}")
    if settings.get("module_output_name") not in outputs:
        raise refusal(where, path, f"{kind} that writes {settings['module_output_name']}")
    if settings.get("use_residual"):
        raise refusal(where, path, f"{kind} with use_residual")
    if kind == "Dense":
        activation(settings, path, where)


def _pooling(settings: Mapping[str, Any], path: str, where: str) -> tuple[Mode, ...]:
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in FLAGS.items() if settings.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes:
        raise refusal(where, path, "pooling of no kind")
    if unknown := [mode for mode in modes if mode not in get_args(Mode)]:
        raise refusal(where, path, f"pooling {unknown[0]}")
    if settings.get("include_prompt") is False:
        raise refusal(where, path, "pooling that leaves the prompt out (include_prompt: false)")
    return tuple(modes)


def activation(settings: Mapping[str, Any], path: str, where: str) -> nn.Module:
    """The activation of a Dense module: a class of torch's own, without arguments and weights."""
    name = settings.get("activation_function")
    name = "torch.nn.modules.activation.Tanh" if name is None else str(name)
    module, _, kind = name.removeprefix(_ACTIVATIONS).partition(".")
    if name.startswith(_ACTIVATIONS) and module in ("activation", "linear"):
        found = getattr(getattr(nn.modules, module), kind, None)
        if isinstance(found, type) and issubclass(found, nn.Module):
            with contextlib.suppress(TypeError):
                made = found()
                if not any(True for _ in made.parameters()):
                    return made
    raise refusal(where, path, f"the activation {name}")


def folder_reader(folder: Path) -> Read:
    """Reads the JSON files below a directory."""

    def read(name: str) -> Any:
        path = folder / name
        return json.loads(path.read_bytes()) if path.is_file() else None

    return read
