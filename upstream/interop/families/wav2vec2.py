"""wav2vec 2.0 from Hugging Face, torchaudio and fairseq-style checkpoints, pretrained or fine-tuned.

fairseq has no projection after the convolutions where the widths agree: the identity stands in.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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

_FAIRSEQ_FIXED = {
    "quantizer_depth": (1,),
    "same_quantizer": (False,),
    "target_glu": (False,),
    "negatives_from_everywhere": (False,),
    "cross_sample_negatives": (0,),
    "codebook_negatives": (0,),
    "quantize_input": (False,),
}
_FAIRSEQ = {
    "feature_dropout": "dropout_features",
    "mask_prob": "mask_prob",
    "mask_length": "mask_length",
    "groups": "latent_groups",
    "codes": "latent_vars",
    "negatives": "num_negatives",
    "contrast_temperature": "logit_temp",
}
_HF = {
    "feature_dropout": "feat_quantizer_dropout",
    "groups": "num_codevector_groups",
    "codes": "num_codevectors_per_group",
    "code_dim": "codevector_dim",
    "final_dim": "proj_codevector_dim",
    "negatives": "num_negatives",
    "contrast_temperature": "contrastive_logits_temperature",
    "diversity_weight": "diversity_loss_weight",
}


def fairseq(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    task: Mapping[str, Any],
    path: str | Path,
) -> Upstream | None:
    """Return the wav2vec 2.0 of a fairseq-style checkpoint, None where it holds another model.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    from mynah.upstream.wav2vec2 import Config, Wav2Vec2

    if fairseq_name(model) not in (None, "wav2vec2", "wav2vec_ctc"):
        return None
    only(model, _FAIRSEQ_FIXED, where=path)
    values = {**fairseq_values(model, task, where=path), **renamed(model, _FAIRSEQ)}
    final = model.get("final_dim") or model.get("encoder_embed_dim", 768)
    temperature = model.get("latent_temp")
    if isinstance(temperature, str):
        temperature = ast.literal_eval(temperature)
    if temperature is not None:
        values.update(zip(("gumbel_start", "gumbel_end", "gumbel_decay"), temperature, strict=True))
    values.update(
        final_dim=final,
        code_dim=model.get("latent_dim") or final,
        objective="quantizer.vars" in weights,
    )
    config = config_from(Config, values, where=path)
    ours = Wav2Vec2(config)
    keymap.fill(
        ours,
        weights,
        "fairseq",
        where=path,
        defaults=keymap.no_projection(config),
    )
    return ours


def hf(settings: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> Upstream | None:
    """Return the wav2vec 2.0 of a Hugging Face directory, None where it holds another model.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    from mynah.upstream.wav2vec2 import Config, Wav2Vec2

    if settings.get("model_type") != "wav2vec2":
        return None
    values = {**hf_values(settings, folder), **renamed(settings, _HF)}
    values["objective"] = "quantizer.codevectors" in state
    config = config_from(Config, values, where=folder)
    ours = Wav2Vec2(config)
    keymap.fill(
        ours,
        state,
        "hf",
        where=folder,
        defaults={"mask_emb": torch.zeros(config.dim)},  # absent where masking was switched off
    )
    return ours


def torchaudio(model: nn.Module, name: str) -> Upstream | None:
    """Return the wav2vec 2.0 of one of torchaudio's factories, None for another.

    Raises:
        ValueError: weights that do not fit.
    """
    from mynah.upstream.wav2vec2 import Config, Wav2Vec2

    if not name.startswith("wav2vec2_"):
        return None
    where = f"torchaudio:{name}"
    config = config_from(
        Config, {**torchaudio_values(model, name), "objective": False}, where=where
    )
    ours = Wav2Vec2(config)
    keymap.fill(
        ours,
        model.state_dict(),
        "torchaudio",
        where=where,
        defaults={"mask_emb": torch.zeros(config.dim)},  # torchaudio's are for features only
    )
    return ours
