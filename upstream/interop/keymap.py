"""Other people's names for the weights of the convolution stack and the shared Transformer.

One table for fairseq (and its copies in s3prl, WavLM, DistilHuBERT) and one for Hugging Face; the
same tables serve every family that is built of these parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.modelfolder import diff

# ours -> theirs, the part of a name that differs
_LAYER = {
    "fairseq": {
        "attn.q": "self_attn.q_proj",
        "attn.k": "self_attn.k_proj",
        "attn.v": "self_attn.v_proj",
        "attn.o": "self_attn.out_proj",
        "norm1": "self_attn_layer_norm",
        "ff1": "fc1",
        "ff2": "fc2",
        "norm2": "final_layer_norm",
    },
    "hf": {
        "attn.q": "attention.q_proj",
        "attn.k": "attention.k_proj",
        "attn.v": "attention.v_proj",
        "attn.o": "attention.out_proj",
        "norm1": "layer_norm",
        "ff1": "feed_forward.intermediate_dense",
        "ff2": "feed_forward.output_dense",
        "norm2": "final_layer_norm",
    },
}
_PARTS = {
    "fairseq": {
        "frontend.norm": "layer_norm",
        "frontend.proj": "post_extract_proj",
        "encoder.norm": "encoder.layer_norm",
        "project_q": "project_q",
        "final_proj": "final_proj",
        "quantizer.logits": "quantizer.weight_proj",
    },
    "hf": {
        "frontend.norm": "feature_projection.layer_norm",
        "frontend.proj": "feature_projection.projection",
        "encoder.norm": "encoder.layer_norm",
        "project_q": "project_q",
        "final_proj": "project_hid",
        "quantizer.logits": "quantizer.weight_proj",
    },
}
_WHOLE: dict[str, dict[str, tuple[str, ...]]] = {
    "fairseq": {
        "mask_emb": ("mask_emb",),
        "encoder.pos.gain": ("encoder.pos_conv.0.weight_g",),
        "encoder.pos.direction": ("encoder.pos_conv.0.weight_v",),
        "encoder.pos.bias": ("encoder.pos_conv.0.bias",),
        "quantizer.vectors_GVC": ("quantizer.vars",),
    },
    "hf": {
        "mask_emb": ("masked_spec_embed",),
        "encoder.pos.gain": (
            "encoder.pos_conv_embed.conv.parametrizations.weight.original0",
            "encoder.pos_conv_embed.conv.weight_g",
        ),
        "encoder.pos.direction": (
            "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
            "encoder.pos_conv_embed.conv.weight_v",
        ),
        "encoder.pos.bias": ("encoder.pos_conv_embed.conv.bias",),
        "quantizer.vectors_GVC": ("quantizer.codevectors",),
    },
}


def theirs(key: str, style: Literal["fairseq", "hf"], *, conv_norm: str) -> tuple[str, ...]:
    """Return their names for one of our weights; the first that a file has is meant.

    Raises:
        LookupError: one of our own that others do not have.
    """
    whole = _WHOLE[style]
    if key in whole:
        return whole[key]
    part, _, leaf = key.rpartition(".")
    if part in _PARTS[style]:
        return (f"{_PARTS[style][part]}.{leaf}",)
    words = key.split(".")
    if key.startswith("encoder.layers."):
        inner = ".".join(words[3:-1])
        return (f"encoder.layers.{words[2]}.{_LAYER[style][inner]}.{leaf}",)
    if key.startswith("frontend.conv."):
        block = f"feature_extractor.conv_layers.{words[2]}"
        if style == "hf":
            return (f"{block}.{'conv' if words[3] == 'conv' else 'layer_norm'}.{leaf}",)
        norm = "2.1" if conv_norm == "layer" else "2"
        return (f"{block}.{'0' if words[3] == 'conv' else norm}.{leaf}",)
    raise LookupError(f"no foreign name is known for {key!r}")


def fill(
    model: Upstream,
    state: Mapping[str, Tensor],
    style: Literal["fairseq", "hf"],
    *,
    conv_norm: str,
    where: object,
    defaults: Mapping[str, Tensor],
) -> None:
    """Copy foreign weights into a model; every weight of both sides must find its partner.

    Args:
        model: to fill.
        state: foreign name -> tensor.
        style: whose names they are.
        conv_norm: ``group`` or ``layer``, which decides fairseq's numbering.
        where: what error messages name.
        defaults: our name -> value for weights that the file may lack.

    Raises:
        ValueError: weights that are missing, left over, or of another shape.
    """
    own = model.state_dict()
    wanted: dict[str, str] = {}
    given: dict[str, str] = {}
    new: dict[str, Tensor] = {}
    used: set[str] = set()
    for key, tensor in own.items():
        if key == "quantizer.temperature":
            new[key] = tensor
            continue
        names = theirs(key, style, conv_norm=conv_norm)
        name = next((name for name in names if name in state), None)
        if name is None:
            if key in defaults:
                new[key] = defaults[key]
            else:
                wanted[names[0]] = str(tuple(tensor.shape))
            continue
        used.add(name)
        value = state[name]
        if key == "quantizer.vectors_GVC" and value.numel() == tensor.numel():
            value = value.reshape(tensor.shape)  # theirs: (1, G V, C)
        wanted[name], given[name] = str(tuple(tensor.shape)), str(tuple(value.shape))
        new[key] = value.to(torch.float32)
    given.update({name: str(tuple(state[name].shape)) for name in state if name not in used})
    difference = diff(wanted, given)
    if difference:
        raise ValueError(f"{where} does not fit {model.name}: {difference}")
    model.load_state_dict(new, strict=True)
