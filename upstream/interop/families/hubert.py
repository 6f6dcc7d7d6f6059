"""HuBERT and WavLM from fairseq-style checkpoints, Hugging Face and torchaudio.

WavLM's own checkpoints hold ``cfg`` (flat settings) and ``model``. The cluster vectors of HuBERT
(``label_embs_concat``) are kept where there is one set of labels; of several, and of WavLM, whose
checkpoints have none, what is read yields features and cannot be pretrained further.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.modelfolder import config_from
from mynah.upstream.interop import keymap
from mynah.upstream.interop.settings import (
    fairseq_name,
    fairseq_values,
    hf_values,
    only,
    renamed,
    torchaudio_values,
)

logger = logging.getLogger(__name__)

_FAIRSEQ_FIXED = {"target_glu": (False,)}
_FAIRSEQ = {
    "mask_prob": "mask_prob",
    "mask_length": "mask_length",
    "temperature": "logit_temp",
    "relative_buckets": "num_buckets",
    "relative_distance": "max_distance",
}
_HF = {"relative_buckets": "num_buckets", "relative_distance": "max_bucket_distance"}
_HEAD = ("final_proj.weight", "final_proj.bias", "label_embs_concat")
_GATE = "encoder.layers.0.self_attn.grep_a"
_BIAS = "encoder.layers.0.self_attn.relative_attention_bias.weight"


def fairseq(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    task: Mapping[str, Any],
    path: str | Path,
) -> Upstream | None:
    """Return the HuBERT or WavLM of a fairseq-style checkpoint, None where it holds another model.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    from mynah.upstream.hubert import Config, Hubert

    name = fairseq_name(model)
    unnamed = name is None and any(key in weights for key in (_HEAD[-1], _GATE, _BIAS))
    if name not in ("hubert", "hubert_ctc") and not unnamed:
        return None
    only(model, _FAIRSEQ_FIXED, where=path)
    values = {**fairseq_values(model, task, where=path), **renamed(model, _FAIRSEQ)}
    if model.get("relative_position_embedding"):
        values["bias"] = "gated" if model.get("gru_rel_pos") else "relative"
    weights = _one_set_of_labels(weights, path)
    if _HEAD[-1] in weights:
        values["clusters"], values["final_dim"] = map(int, weights[_HEAD[-1]].shape)
    values["objective"] = _HEAD[-1] in weights
    config = config_from(Config, values, where=path)
    ours = Hubert(config)
    keymap.fill(ours, weights, "fairseq", where=path, defaults=keymap.no_projection(config))
    return ours


def _one_set_of_labels(weights: Mapping[str, Tensor], path: str | Path) -> Mapping[str, Tensor]:
    """Return the weights without a head that is not whole or compares with several label sets."""
    head = [key for key in _HEAD if key in weights]
    if len(head) == len(_HEAD) and len(weights[_HEAD[1]]) == weights[_HEAD[2]].shape[1]:
        return weights
    if len(head) == len(_HEAD):
        logger.warning(
            "%s predicts several sets of labels: its heads are dropped, what is read yields "
            "features only",
            path,
        )
    return {key: value for key, value in weights.items() if key not in head}


def hf(settings: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Upstream | None:
    """Return the HuBERT or WavLM of a Hugging Face directory, None where it holds another model.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    from mynah.upstream.hubert import Config, Hubert

    kind = settings.get("model_type")
    if kind not in ("hubert", "wavlm") or not settings.get("feat_proj_layer_norm", True):
        return None
    values = {**hf_values(settings, folder), "objective": False}
    if kind == "wavlm":
        values.update({"bias": "gated", **renamed(settings, _HF)})
    config = config_from(Config, values, where=folder)
    ours = Hubert(config)
    keymap.fill(ours, state, "hf", where=folder, defaults=_no_mask(config))
    return ours


def torchaudio(model: Any, name: str) -> Upstream | None:
    """Return the HuBERT or WavLM of one of torchaudio's factories, None for another.

    Raises:
        ValueError: weights that do not fit.
    """
    from mynah.upstream.hubert import Config, Hubert

    if not name.startswith(("hubert_", "wavlm_")):
        return None
    where = f"torchaudio:{name}"
    values = {**torchaudio_values(model, name), "objective": False}
    if name.startswith("wavlm_"):
        attention = model.encoder.transformer.layers[0].attention
        values.update(
            bias="gated" if attention.gru_rel_pos else "relative",
            relative_buckets=attention.num_buckets,
            relative_distance=attention.max_distance,
        )
    config = config_from(Config, values, where=where)
    ours = Hubert(config)
    state = _unpacked(model.state_dict())
    keymap.fill(ours, state, "torchaudio", where=where, defaults=_no_mask(config))
    return ours


def _no_mask(config: Any) -> dict[str, Tensor]:
    """Return what stands in for the mask's vector where the source has none."""
    return {"mask_emb": torch.zeros(config.dim)}


def _unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return WavLM's weights in torchaudio with the packed projections taken apart."""
    apart: dict[str, Tensor] = {}
    for name, value in state.items():
        place, packed, leaf = name.rpartition("attention.in_proj_")
        if packed:
            for part, tensor in zip("qkv", value.chunk(3), strict=True):
                apart[f"{place}{part}_proj.{leaf}"] = tensor
        else:
            apart[name.replace("attention.attention.out_proj", "attention.out_proj")] = value
    return apart
