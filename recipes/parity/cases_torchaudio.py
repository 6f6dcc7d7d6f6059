"""Pairs with torchaudio: its own models, converted as ``mynah import torchaudio:...`` does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from mynah.recipes.parity.compare import Measured, Pair, built, distance

SIZE: dict[str, Any] = {
    "extractor_conv_layer_config": [(16, 10, 5)] + [(16, 3, 2)] * 4 + [(16, 2, 2)] * 2,
    "encoder_embed_dim": 32,
    "encoder_projection_dropout": 0.1,
    "encoder_pos_conv_kernel": 128,
    "encoder_pos_conv_groups": 4,
    "encoder_num_layers": 3,
    "encoder_num_heads": 2,
    "encoder_attention_dropout": 0.1,
    "encoder_ff_interm_features": 48,
    "encoder_ff_interm_dropout": 0.0,
    "encoder_dropout": 0.1,
    "encoder_layer_drop": 0.05,
    "aux_num_out": None,
}
BUCKETS = {"encoder_num_buckets": 32, "encoder_max_distance": 80}


def states(_: Path, *, factory: str, large: bool) -> Measured:
    """Compare the states of a small model of the shape that a factory builds."""
    from torchaudio import models

    from mynah.upstream.interop import families, torchaudio

    wavlm = factory.startswith("wavlm")
    build = models.wavlm_model if wavlm else models.wav2vec2_model
    model = built(
        lambda: build(
            extractor_mode="layer_norm" if large else "group_norm",
            extractor_conv_bias=large,
            encoder_layer_norm_first=large,
            **SIZE,
            **(BUCKETS if wavlm else {}),
        )
    )
    normalise = torchaudio.is_normalised(factory)
    theirs = torchaudio.wrap(model, name=factory, normalise=normalise)
    ours = families.from_torchaudio(model, factory)
    if ours is None:
        raise ValueError(f"no family takes torchaudio's {factory}")
    return Measured(distance(ours, theirs))


def _pair(family: str, factory: str, *, large: bool) -> Pair:
    return Pair(
        family=family,
        reference=f"torchaudio {factory}",
        setting=("wavlm, " if factory.startswith("wavlm") else "")
        + ("pre, layer" if large else "post, group"),
        measure=partial(states, factory=factory, large=large),
    )


PAIRS = [
    _pair("wav2vec2", "wav2vec2_base", large=False),
    _pair("wav2vec2", "wav2vec2_large_lv60k", large=True),
    _pair("hubert", "hubert_base", large=False),
    _pair("hubert", "hubert_large", large=True),
    _pair("hubert", "wavlm_base", large=False),
    _pair("hubert", "wavlm_large", large=True),
]
