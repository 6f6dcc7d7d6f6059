"""wav2vec from fairseq-style checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.modelfolder import config_from
from mynah.upstream.interop.filling import fill
from mynah.upstream.interop.settings import conv_layers, only, renamed

# fairseq's defaults
EXTRACTOR = "[(512, 10, 5), (512, 8, 4)] + [(512, 4, 2)] * 3 + [(512, 1, 1)] * 3"
AGGREGATOR = "[" + ", ".join(f"(512, {kernel}, 1)" for kernel in range(2, 14)) + "]"

_FIXED = {
    "activation": ("relu", "gelu"),
    "aggregator": ("cnn",),
    "skip_connections_feat": (False,),
    "non_affine_group_norm": (False,),
    "no_conv_bias": (False,),
    "project_features": ("none",),
    "balanced_classes": (False,),
    "infonce": (False,),
    "cross_sample_negatives": (0,),
    "sample_distance": (None,),
    "dropout_features": (0,),
    "dropout_agg": (0,),
}
_NAMES = {
    "activation": "activation",
    "log_compression": "log_compression",
    "skip": "skip_connections_agg",
    "residual_scale": "residual_scale",
    "zero_pad": "agg_zero_pad",
    "dropout": "dropout",
    "steps": "prediction_steps",
    "negatives": "num_negatives",
}
_PREDICTOR = "wav2vec_predictions.project_to_steps"


def fairseq(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    task: Mapping[str, Any],
    path: str | Path,
) -> Upstream | None:
    """Return the wav2vec of a fairseq-style checkpoint, None where it holds another model.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    from mynah.upstream.wav2vec import Config, Wav2Vec

    if not is_wav2vec(weights) or any(key.startswith("vector_quantizer.") for key in weights):
        return None
    config = config_from(Config, fairseq_values(model, where=path), where=path)
    return fill(Wav2Vec(config), reshaped(weights), wav2vec_key, path)


def is_wav2vec(weights: Mapping[str, Tensor]) -> bool:
    """Return whether weights are those of a wav2vec, with a quantiser or without."""
    return f"{_PREDICTOR}.weight" in weights


def fairseq_values(model: Mapping[str, Any], *, where: object) -> dict[str, Any]:
    """Return the settings of both stacks and of the objective in our words.

    Args:
        model: the model's settings; what is not there has fairseq's default.
        where: what error messages name.

    Raises:
        ValueError: a setting that is not implemented.
    """
    only(model, _FIXED, where=where)
    extractor = conv_layers(model.get("conv_feature_layers") or EXTRACTOR)
    aggregator = conv_layers(model.get("conv_aggregator_layers") or AGGREGATOR)
    if len({channels for channels, _, _ in extractor + aggregator}) != 1:
        raise ValueError(
            f"{where}: all convolutions must have one width, got {extractor + aggregator}"
        )
    if any(stride != 1 for _, _, stride in aggregator):
        raise ValueError(f"{where}: the aggregator's strides must be 1, got {aggregator}")
    offset = model.get("offset", "auto")
    return {
        **renamed(model, _NAMES),
        "channels": extractor[0][0],
        "kernels": [kernel for _, kernel, _ in extractor],
        "strides": [stride for _, _, stride in extractor],
        "context_kernels": [kernel for _, kernel, _ in aggregator],
        "offset": None if offset == "auto" else int(offset),
    }


def reshaped(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with the predictor's maps laid out as ours: (K, D, D)."""
    state = dict(weights)
    maps = state[f"{_PREDICTOR}.weight"]
    if maps.ndim == 4:  # theirs: inputs, outputs, 1, steps
        state[f"{_PREDICTOR}.weight"] = maps[:, :, 0].permute(2, 1, 0)
    return state


def wav2vec_key(key: str) -> str:
    """Return fairseq's name of one of our wav2vec's weights."""
    if key.startswith("predictor."):
        return f"{_PREDICTOR}.{'bias' if key == 'predictor.bias_D' else 'weight'}"
    stack, _, layer, part, leaf = key.split(".")
    place = {"extractor": {"conv": 0, "norm": 2}, "aggregator": {"conv": 1, "norm": 3}}
    return f"feature_{stack}.conv_layers.{layer}.{place[stack][part]}.{leaf}"
