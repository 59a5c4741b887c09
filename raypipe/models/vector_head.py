"""sentence-transformers' modules after a transformer as one torch module with its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from raypipe.config import ConfigError
from raypipe.models.pooling import Mode, pool
from raypipe.models.sentence_modules import Layer, activation, refusal


class VectorHead(nn.Module):
    """Token vectors to one vector per text: pooling, and the layers after it, in float32."""

    def __init__(self, pooling: tuple[Mode, ...], layers: list[nn.Module]) -> None:
        super().__init__()
        self.pooling = pooling
        self.layers = nn.Sequential(*layers)

    def forward(self, hidden_BLH: Tensor, mask_BL: Tensor) -> Tensor:
        with torch.autocast(hidden_BLH.device.type, enabled=False):
            vectors_BH: Tensor = self.layers(pool(hidden_BLH.float(), mask_BL, self.pooling))
        return vectors_BH


class UnitVectors(nn.Module):
    """Divides by the length."""

    def forward(self, vectors_BH: Tensor) -> Tensor:
        return nn.functional.normalize(vectors_BH, dim=-1)


def vector_head(
    folder: Path, pooling: tuple[Mode, ...], layers: tuple[Layer, ...], width: int, where: str
) -> VectorHead:
    """The head with the folder's weights.

    Args:
        width: of the transformer's token vectors.

    Raises:
        ConfigError: a layer has no safetensors file, weights of other names or shapes, or reads
            another width than it is given.
    """
    head = VectorHead(pooling, [_built(folder, layer, where) for layer in layers])
    try:
        with torch.inference_mode():
            head(torch.zeros(1, 1, width), torch.ones(1, 1))
    except RuntimeError as error:
        kinds = ", ".join(layer.path for layer in layers)
        raise ConfigError(
            f"{where}: token vectors of {width} numbers do not go through pooling "
            f"{' + '.join(pooling)}, {kinds}: {error}; copy the model again"
        ) from None
    return head.eval()


def _built(folder: Path, layer: Layer, where: str) -> nn.Module:
    if layer.kind == "Normalize":
        return UnitVectors()
    settings = layer.settings
    try:
        if layer.kind == "LayerNorm":
            own: nn.Module = nn.LayerNorm(int(settings["dimension"]))
        else:
            sizes = int(settings["in_features"]), int(settings["out_features"])
            own = nn.Linear(*sizes, bias=bool(settings.get("bias", True)))
    except (KeyError, TypeError, ValueError):
        raise refusal(where, layer.path, f"{layer.kind} without its sizes") from None
    _fill(own, folder / layer.path, "norm." if layer.kind == "LayerNorm" else "linear.", where)
    if layer.kind == "LayerNorm":
        return own
    return nn.Sequential(own, activation(settings, layer.path, where))


def _fill(module: nn.Module, folder: Path, prefix: str, where: str) -> None:
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    if not path.is_file():
        raise ConfigError(
            f"{where}: expected the weights of a module in {path}, found none; other formats are "
            "pickles and are not read: save the model again with safetensors"
        )
    weights = {name.removeprefix(prefix): value.float() for name, value in load_file(path).items()}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        words = " ".join(str(error).split())
        raise ConfigError(
            f"{where}: weights of other names or shapes in {path}: {words}; copy the model again"
        ) from None
