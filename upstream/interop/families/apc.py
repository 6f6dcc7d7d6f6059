"""APC and VQ-APC from checkpoints of s3prl: ``model`` (weights) and ``config`` (settings)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop.filling import at, fill, require


def s3prl(content: Mapping[str, Any], path: str | Path) -> Upstream | None:
    """Return the APC of a checkpoint, None where it holds something else.

    Raises:
        ValueError: an APC with a setting that ours does not have, or whose weights do not fit.
    """
    from mynah.upstream.apc import Apc, Config

    paras, audio = at(content, "config", "model", "paras"), at(content, "config", "data", "audio")
    weights = at(content, "model")
    if "rnn_layers.0.weight_ih_l0" not in weights:
        return None
    require(
        path,
        {**audio, **paras},
        feat_type="fbank",
        frame_length=25,
        frame_shift=10,
        cmvn=True,
        residual=True,
    )
    vq = at(paras, "vq")
    config = Config(
        num_mels=int(audio["feat_dim"]),
        width=int(paras["hidden_size"]),
        layers=int(paras["num_layers"]),
        dropout=float(paras["dropout"]),
        shift=int(at(content, "config", "task").get("n_future", Config.shift)),
        codes=tuple(vq.get("codebook_size", ())),
        code_dims=tuple(vq.get("code_dim", ())),
        gumbel_temperature=float(vq.get("gumbel_temperature", Config.gumbel_temperature)),
        loss_over_padding=True,
    )
    for group in range(len(config.codes)):  # a setting there, a buffer here
        temperature = torch.tensor(config.gumbel_temperature)
        weights[f"vq_layers.{group}.temperature"] = temperature
    return fill(Apc(config), weights, apc_key, path)


_PARTS = {
    "layers.": "rnn_layers.",
    "quantizers.": "vq_layers.",
    "logits.": "vq_logits.",
    "codebook.": "codebook_CxE.",
    "predict.": "postnet.",
}


def apc_key(key: str) -> str:
    """Return s3prl's name of one of our APC's weights."""
    for ours, theirs in _PARTS.items():
        key = key.replace(ours, theirs)
    return key
