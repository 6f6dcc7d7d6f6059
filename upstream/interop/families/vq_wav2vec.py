"""vq-wav2vec, with either quantiser, from fairseq-style checkpoints."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.modelfolder import config_from
from mynah.upstream.interop.families.wav2vec import (
    fairseq_values,
    is_wav2vec,
    reshaped,
    wav2vec_key,
)
from mynah.upstream.interop.filling import fill
from mynah.upstream.interop.settings import only, renamed

_FIXED = {"vq_type": ("gumbel", "kmeans")}
_NAMES = {
    "quantizer": "vq_type",
    "groups": "vq_groups",
    "codes": "vq_vars",
    "shared": "combine_groups",
    "depth": "vq_depth",
    "commitment": "vq_gamma",
}
_FAIRSEQ = {"shared": False, "depth": 1}  # its defaults where ours, the published ones, differ
_QUANTIZER = "coder.quantizer."


def fairseq(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    task: Mapping[str, Any],
    path: str | Path,
) -> Upstream | None:
    """Return the vq-wav2vec of a fairseq-style checkpoint, None where it holds another model.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    from mynah.upstream.vq_wav2vec import Config, VqWav2Vec

    if not is_wav2vec(weights) or not any(key.startswith("vector_quantizer.") for key in weights):
        return None
    only(model, _FIXED, where=path)
    values = {**_FAIRSEQ, **fairseq_values(model, where=path), **renamed(model, _NAMES)}
    if model.get("vq_dim") not in (None, 0, values["channels"]):
        raise ValueError(
            f"{path}: vq_dim must be the width of the convolutions, {values['channels']}, or 0 "
            f"for it, got {model['vq_dim']}"
        )
    temperature = model.get("vq_temp")
    if isinstance(temperature, str):
        temperature = ast.literal_eval(temperature)
    if temperature is not None:
        values.update(zip(("gumbel_start", "gumbel_end", "gumbel_decay"), temperature, strict=True))
    ours = VqWav2Vec(config_from(Config, values, where=path))
    state, own = reshaped(weights), ours.state_dict()
    vectors_GVC = own[f"{_QUANTIZER}vectors_GVC"]
    if ours.config.quantizer == "gumbel":
        # fairseq derives the temperature from the number of updates
        state[f"{_QUANTIZER}temperature"] = own[f"{_QUANTIZER}temperature"]
        flat = state.get("vector_quantizer.vars")  # theirs: (1, G V, C)
        if flat is not None and flat.numel() == vectors_GVC.numel():
            state["vector_quantizer.vars"] = flat.reshape(vectors_GVC.shape)
    elif "vector_quantizer.embedding" in state:  # theirs: (V, G, C)
        state["vector_quantizer.embedding"] = state["vector_quantizer.embedding"].transpose(0, 1)
    return fill(ours, state, lambda key: vq_wav2vec_key(key, config=ours.config), path)


def vq_wav2vec_key(key: str, *, config: Any) -> str:
    """Return fairseq's name of one of our vq-wav2vec's weights.

    Args:
        key: ours.
        config: our model's, for its quantiser.
    """
    part = key.removeprefix(_QUANTIZER)
    if part == key:
        return wav2vec_key(key.removeprefix("coder."))
    if part == "temperature":
        return key
    if part == "vectors_GVC":
        return f"vector_quantizer.{'vars' if config.quantizer == 'gumbel' else 'embedding'}"
    name, _, leaf = part.rpartition(".")
    if name in ("proj", "norm"):
        return f"vector_quantizer.projection.{0 if name == 'proj' else 1}.{leaf}"
    if name == "logits":
        inner = "weight_proj" if config.depth == 1 else f"weight_proj.{config.depth - 1}"
        return f"vector_quantizer.{inner}.{leaf}"
    layer = int(name.removeprefix("hidden.")) // 2
    return f"vector_quantizer.weight_proj.{layer}.0.{leaf}"
