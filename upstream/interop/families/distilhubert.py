"""DistilHuBERT from checkpoints of s3prl and from Hugging Face.

s3prl's hold ``Distiller`` (weights) and ``Config`` (settings, under ``distiller``). Hugging Face has
it as a HuBERT without the layer norm before the projection, and without the heads: what is read has
the states up to the last layer and cannot be distilled further.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.modelfolder import config_from
from mynah.upstream.interop import keymap
from mynah.upstream.interop.filling import at
from mynah.upstream.interop.settings import fairseq_values, hf_values, only

_FIXED = {
    "attention_type": ("original",),
    "task_emb_type": ("expand-last",),
    "out_layer_type": ("expand-last",),
    "extractor_dropout": (0, 0.0),
    "loss_type": ("l1",),
    "feat_pen_loss": (0, 0.0),
}


def s3prl(content: Mapping[str, Any], path: str | Path) -> Upstream | None:
    """Return the DistilHuBERT of a checkpoint, None where it holds something else.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    from mynah.upstream.distilhubert import Config, Distilhubert

    weights = content.get("Distiller")
    if not isinstance(weights, Mapping):
        return None
    settings = at(content, "Config", "distiller")
    only(settings, _FIXED, where=path)
    width = int(settings.get("encoder_embed_dim", 768))
    inner = int(settings.get("out_layer_inter_dim", -1))
    if inner not in (-1, width):
        raise ValueError(f"{path}: out_layer_inter_dim is {inner}, only {width} is implemented")
    model = {
        "encoder_layers": 1,  # s3prl's defaults where they are not fairseq's
        "activation_dropout": 0.1,
        **settings,
        "conv_feature_layers": settings.get("extractor_conv_feature_layers"),
        "conv_bias": False,
    }
    tasks = int(settings.get("n_tasks", 12))
    values = fairseq_values(model, {}, where=path)
    values.update(
        teacher_dim=int(settings.get("final_dim", 768)),
        teacher_layers=list(settings.get("pred_layer_id", range(1, tasks + 1))),
        cosine_weight=float(settings.get("cosine_loss", 0.0)),
        from_teacher=bool(settings.get("init_teacher_conv_layers", False)),
    )
    config = config_from(Config, values, where=path)
    ours = Distilhubert(config)
    keymap.fill(ours, weights, "fairseq", where=path, defaults=keymap.no_projection(config))
    return ours


def hf(settings: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Upstream | None:
    """Return the DistilHuBERT of a Hugging Face directory, None where it holds another model.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    from mynah.upstream.distilhubert import Config, Distilhubert

    if settings.get("model_type") != "hubert" or settings.get("feat_proj_layer_norm", True):
        return None
    values = {**hf_values(settings, folder), "objective": False}
    config = config_from(Config, values, where=folder)
    ours = Distilhubert(config)
    state = {key: value for key, value in state.items() if key != "masked_spec_embed"}
    keymap.fill(ours, state, "hf", where=folder)
    return ours
