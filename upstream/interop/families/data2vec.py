"""data2vec from fairseq-style checkpoints and from Hugging Face.

fairseq keeps the teacher among the weights, as ``_ema``. Where it is there and the targets are made
as ours are, what is read can be pretrained further; else it yields features. data2vec 2.0, which has
other modules and names there, is read by :mod:`mynah.upstream.interop.data2vec_multi`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.modelfolder import config_from
from mynah.upstream.interop import data2vec_multi, keymap
from mynah.upstream.interop.settings import fairseq_name, fairseq_values, hf_values, renamed

_FAIRSEQ = {
    "mask_prob": "mask_prob",
    "mask_length": "mask_length",
    "top_layers": "average_top_k_layers",
    "ema_start": "ema_decay",
    "ema_end": "ema_end_decay",
    "ema_anneal": "ema_anneal_end_step",
}
# how targets are made where ours can go on from theirs
_TARGETS = {
    "instance_norm_target_layer": True,
    "layer_norm_target_layer": False,
    "batch_norm_target_layer": False,
    "group_norm_target_layer": False,
    "instance_norm_targets": False,
    "layer_norm_targets": False,
    "ema_layers_only": True,
    "loss_beta": 0,
    "loss_scale": None,
}
_HF = {
    "pos_kernel": "conv_pos_kernel_size",
    "pos_depth": "num_conv_pos_embeddings",
    "pos_groups": "num_conv_pos_embedding_groups",
}
_TEACHER = "_ema."


def fairseq(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    task: Mapping[str, Any],
    path: str | Path,
) -> Upstream | None:
    """Return the data2vec of a fairseq-style checkpoint, None where it holds another model.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    from mynah.upstream.data2vec import Config, Data2Vec

    if fairseq_name(model) == data2vec_multi.NAME:
        return data2vec_multi.read(weights, model, task, path)
    if fairseq_name(model) not in ("data2vec_audio", "data2vec_audio_ctc"):
        return None
    objective = (
        all(model.get(key, value) == value for key, value in _TARGETS.items())
        and "final_proj.weight" in weights
        and any(key.startswith(_TEACHER) for key in weights)
    )
    if not objective:
        weights = {k: v for k, v in weights.items() if not k.startswith((_TEACHER, "final_proj."))}
    values = {**fairseq_values(model, task, where=path), **renamed(model, _FAIRSEQ)}
    config = config_from(Config, {**values, "objective": objective}, where=path)
    ours = Data2Vec(config)
    keymap.fill(ours, weights, "fairseq", where=path)
    return ours


def hf(settings: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Upstream | None:
    """Return the data2vec of a Hugging Face directory, None where it holds another model.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    from mynah.upstream.data2vec import Config, Data2Vec

    if settings.get("model_type") != "data2vec-audio":
        return None
    settings = {"feat_extract_norm": "layer", **settings}  # which it has without saying so
    values = {**hf_values(settings, folder), **renamed(settings, _HF), "objective": False}
    config = config_from(Config, values, where=folder)
    ours = Data2Vec(config)
    defaults = {"mask_emb": torch.zeros(config.dim)}  # absent where masking was switched off
    keymap.fill(ours, state, "hf", where=folder, defaults=defaults)
    return ours
