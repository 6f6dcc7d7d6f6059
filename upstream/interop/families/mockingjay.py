"""Mockingjay, TERA and AudioALBERT from checkpoints of s3prl.

They hold ``Transformer``, ``SpecHead`` and their settings. AudioALBERT's one layer is there once
for each time that it is applied; ours is kept once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop.filling import at, fill, require


def s3prl(content: Mapping[str, Any], path: str | Path) -> Upstream | None:
    """Return the Mockingjay (or relative) of a checkpoint, None where it holds something else.

    Raises:
        ValueError: a setting that ours does not have, weights that do not fit, or a shared layer
            whose copies differ.
    """
    from mynah.upstream.mockingjay import Config, Mockingjay

    if "Transformer" not in content:
        return None
    settings = at(content, "Config")
    if "transformer" not in settings:
        settings = at(content, "Upstream_Config")
    net, audio, task = (at(settings, key) for key in ("transformer", "audio", "task"))
    if "kaldi" in audio:
        raise ValueError(
            f"{path} was trained on Kaldi features ({at(audio, 'kaldi').get('feat_type')}); ours "
            f"knows log-mel spectrograms only. s3prl can run it: s3prl:<hub name>,ckpt={path}"
        )
    source = at(audio, "input")
    target = at(audio, "target") or source
    require(path, net, hidden_act="gelu", pre_layer_norm=False, initializer_range=0.02)
    require(path, audio, win_ms=25, hop_ms=10, n_freq=201, target_level=-25, sample_rate=16000)
    require(path, source, feat_type="mel", log=True, cmvn=True, delta=0)
    require(path, target, feat_type=("mel", "linear"), log=True, cmvn=True, delta=0)
    length = int(task.get("mask_consecutive_max", Config.mask_length))
    config = Config(
        num_mels=int(audio["n_mels"]),
        target=target["feat_type"],
        dim=int(net["hidden_size"]),
        layers=int(net["num_hidden_layers"]),
        heads=int(net["num_attention_heads"]),
        ffn=int(net["intermediate_size"]),
        norm_eps=float(net["layer_norm_eps"]),
        shared=bool(net.get("share_layer", Config.shared)),
        dropout=float(net["hidden_dropout_prob"]),
        attention_dropout=float(net["attention_probs_dropout_prob"]),
        mask_prob=float(task.get("mask_proportion", Config.mask_prob)),
        mask_length=length,
        band_share=float(task.get("mask_frequency", Config.band_share)),
        noise_prob=float(task.get("noise_proportion", Config.noise_prob)),
        max_frames=int(task.get("sequence_length") or 24000),  # 24000: rows of its position table
    )
    weights = {f"Transformer.{key}": value for key, value in content["Transformer"].items()}
    weights.update({f"SpecHead.{key}": value for key, value in content["SpecHead"].items()})
    weights = {
        key.replace("gamma", "weight").replace("beta", "bias"): value
        for key, value in weights.items()
    }
    if config.shared:
        weights = _merged(weights, config.layers, path)
    return fill(Mockingjay(config), weights, mockingjay_key, path)


def _merged(weights: Mapping[str, Tensor], layers: int, path: str | Path) -> dict[str, Tensor]:
    """Return the weights with the first of ``layers`` equal layers only.

    Raises:
        ValueError: a layer is missing, or differs from the first.
    """
    start = "Transformer.encoder.layer."
    merged = {key: value for key, value in weights.items() if not key.startswith(start)}
    first = {key: value for key, value in weights.items() if key.startswith(f"{start}0.")}
    found = len(weights) - len(merged)
    if found != layers * len(first):
        raise ValueError(
            f"{path} says that {layers} layers share their weights, but holds {found} tensors of "
            f"layers, {len(first)} of them of the first"
        )
    for key, value in first.items():
        for layer in range(1, layers):
            other = key.replace(f"{start}0.", f"{start}{layer}.", 1)
            if other not in weights or not torch.equal(weights[other], value):
                raise ValueError(
                    f"{path} says that its layers share their weights (share_layer), but {other} "
                    f"{'differs from' if other in weights else 'is missing beside'} {key}"
                )
    return {**merged, **first}


_PARTS = {
    "proj": "Transformer.input_representations.spec_transform",
    "encoder.norm": "Transformer.input_representations.LayerNorm",
    "head.0": "SpecHead.dense",
    "head.2": "SpecHead.LayerNorm",
    "head.3": "SpecHead.output",
    "attn.q": "attention.self.query",
    "attn.k": "attention.self.key",
    "attn.v": "attention.self.value",
    "attn.o": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "ff1": "intermediate.dense",
    "ff2": "output.dense",
    "norm2": "output.LayerNorm",
}


def mockingjay_key(key: str) -> str:
    """Return s3prl's name of one of our Mockingjay's weights, with the part it belongs to."""
    part, _, leaf = key.rpartition(".")
    if part in _PARTS:
        return f"{_PARTS[part]}.{leaf}"
    _, _, layer, inner = part.split(".", 3)
    return f"Transformer.encoder.layer.{layer}.{_PARTS[inner]}.{leaf}"
