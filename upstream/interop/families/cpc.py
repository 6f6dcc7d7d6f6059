"""CPC from checkpoints of s3prl and ``CPC_audio``'s hub: ``weights`` and ``config``.

They hold encoder and context without the predictors, so the model yields features and cannot be
pretrained further. s3prl ignores weights that it does not know and leaves out those that are
missing; here both are errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop.filling import at, fill, require

_NORMS = {"layerNorm": "channel", "batchNorm": "batch"}


def s3prl(content: Mapping[str, Any], path: str | Path) -> Upstream | None:
    """Return the CPC of a checkpoint, None where it holds something else.

    Raises:
        ValueError: a CPC with a setting that ours does not have, or whose weights do not fit.
    """
    from mynah.upstream.cpc import Config, Cpc

    weights = at(content, "weights")
    if not any(key.startswith("gEncoder.") for key in weights):
        return None
    settings = at(content, "config")
    require(
        path,
        settings,
        encoder_type="cpc",
        normMode=tuple(_NORMS),
        arMode=("LSTM", "GRU"),
        cpc_mode=(None, "none"),
        samplingType=("samespeaker", "uniform", "samesequence"),
    )
    norm = _NORMS[settings.get("normMode", "layerNorm")]
    config = Config(
        channels=int(settings.get("hiddenEncoder", 256)),
        norm="batch" if norm == "batch" else "channel",
        context="gru" if settings.get("arMode", "LSTM") == "GRU" else "lstm",
        width=int(settings.get("hiddenGar", 256)),
        layers=int(settings.get("nLevelsGRU", 1)),
        objective=False,
    )
    return fill(Cpc(config), adapted(weights, norm), cpc_key, path)


def adapted(weights: Mapping[str, Tensor], norm: str) -> dict[str, Tensor]:
    """Return the weights with their own names, in the shapes of ours.

    A channel norm's (1, C, 1) becomes (C); the bias of a convolution goes into the running mean
    of the batch norm after it.
    """
    state = dict(weights)
    for key in weights:
        if norm == "channel" and "batchNorm" in key:
            state[key] = state[key].flatten()
        if norm == "batch" and "gEncoder.conv" in key and key.endswith(".bias"):
            mean = key.replace("conv", "batchNorm").replace("bias", "running_mean")
            state[mean] = state[mean] - state.pop(key)
    return state


def cpc_key(key: str) -> str:
    """Return s3prl's name of one of our CPC's weights."""
    for ours, theirs in (
        ("encoder.convs.", "gEncoder.conv"),
        ("encoder.norms.", "gEncoder.batchNorm"),
        ("context.", "gAR.baseNet."),
    ):
        key = key.replace(ours, theirs)
    return key
