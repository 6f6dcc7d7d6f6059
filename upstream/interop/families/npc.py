"""NPC from checkpoints of s3prl and of its authors' code: ``model`` (weights) and ``config``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop.filling import at, fill, require


def s3prl(content: Mapping[str, Any], path: str | Path) -> Upstream | None:
    """Return the NPC of a checkpoint, None where it holds something else.

    Raises:
        ValueError: an NPC with a setting that ours does not have, or whose weights do not fit.
    """
    from mynah.upstream.npc import Config, Npc

    weights = at(content, "model")
    if "masked_convs.0.conv.weight" not in weights:
        return None
    paras, audio = at(content, "config", "model", "paras"), at(content, "config", "data", "audio")
    require(
        path,
        {**audio, **paras},
        feat_type="fbank",
        frame_length=25,
        frame_shift=10,
        cmvn=True,
        residual=True,
        batch_norm=True,
        activate="relu",
        disable_cross_layer=False,
        dim_bottleneck=None,
    )
    vq = at(paras, "vq")
    config = Config(
        num_mels=int(audio["feat_dim"]),
        dim=int(paras["hidden_size"]),
        blocks=int(paras["n_blocks"]),
        kernel=int(paras["kernel_size"]),
        mask=int(paras["mask_size"]),
        dropout=float(paras["dropout"]),
        codes=tuple(vq.get("codebook_size", ())),
        code_dims=tuple(vq.get("code_dim", ())),
        gumbel_temperature=float(vq.get("gumbel_temperature", Config.gumbel_temperature)),
    )
    return fill(Npc(config), adapted(weights, config, path), npc_key, path)


def adapted(weights: Mapping[str, Tensor], config: Any, path: str | Path) -> dict[str, Tensor]:
    """Return the weights with their own names, in the shapes of ours.

    The taps under a mask are left out, the bias of a layer goes into the running mean of the batch
    norm after it, the kernel axis of convolutions over single frames is dropped, and the temperature,
    a setting there, is a buffer here.

    Raises:
        ValueError: a mask that is not the one of the settings.
    """
    state = dict(weights)
    for index in range(config.blocks):
        block = f"blocks.{index}"
        for layer, norm in (("conv", "bn1"), ("linear", "bn2")):
            mean = f"{block}.{norm}.running_mean"
            state[mean] = state[mean] - state.pop(f"{block}.{layer}.bias")
        state[f"{block}.linear.weight"] = state[f"{block}.linear.weight"].squeeze(-1)
        key = f"masked_convs.{index}.conv.weight"
        side = (config.kernel - config.mask - 2 * (index + 1)) // 2
        open_OIK = torch.ones_like(state[key])
        open_OIK[..., side : config.kernel - side] = 0
        if not torch.equal(state.pop(f"masked_convs.{index}.conv_mask"), open_OIK):
            raise ValueError(
                f"{path}: masked_convs.{index}.conv_mask is not the one that kernel_size="
                f"{config.kernel} and mask_size={config.mask} give"
            )
        state[key] = torch.cat([state[key][..., :side], state[key][..., -side:]], dim=-1)
    for group in range(len(config.codes)):
        state[f"vq_layers.{group}.temperature"] = torch.tensor(config.gumbel_temperature)
    return state


def npc_key(key: str) -> str:
    """Return s3prl's name of one of our NPC's weights."""
    for ours, theirs in (
        (".norm1.", ".bn1."),
        (".norm2.", ".bn2."),
        ("masked.", "masked_convs."),
        (".weight_OIK", ".conv.weight"),
        ("quantizers.", "vq_layers."),
        ("logits.", "vq_logits."),
        ("codebook.", "codebook_CxE."),
        ("predict.", "postnet."),
    ):
        key = key.replace(ours, theirs)
    return key.replace(".bias", ".conv.bias") if key.startswith("masked_convs.") else key
