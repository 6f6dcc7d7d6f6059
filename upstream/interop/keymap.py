"""Other people's names for the weights of the convolution stack and the shared Transformer.

One table of names in fairseq (and its copies in s3prl, WavLM, DistilHuBERT) and in Hugging Face;
torchaudio's differ from the latter by a prefix. The same table serves every family that is built of
these parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.modelfolder import diff

Style = Literal["fairseq", "hf", "torchaudio"]

# ours: (fairseq's, Hugging Face's), of the parts of a layer ...
_LAYER = {
    "attn.q": ("self_attn.q_proj", "attention.q_proj"),
    "attn.k": ("self_attn.k_proj", "attention.k_proj"),
    "attn.v": ("self_attn.v_proj", "attention.v_proj"),
    "attn.o": ("self_attn.out_proj", "attention.out_proj"),
    "attn.gate.linear": ("self_attn.grep_linear", "attention.gru_rel_pos_linear"),
    "norm1": ("self_attn_layer_norm", "layer_norm"),
    "ff1": ("fc1", "feed_forward.intermediate_dense"),
    "ff2": ("fc2", "feed_forward.output_dense"),
    "norm2": ("final_layer_norm", "final_layer_norm"),
}
# ... of parts that have a weight and perhaps a bias ...
_PARTS = {
    "frontend.norm": ("layer_norm", "feature_projection.layer_norm"),
    "frontend.proj": ("post_extract_proj", "feature_projection.projection"),
    "encoder.norm": ("encoder.layer_norm", "encoder.layer_norm"),
    "encoder.bias.values": (
        "encoder.layers.0.self_attn.relative_attention_bias",
        "encoder.layers.0.attention.rel_attn_embed",
    ),
    "project_q": ("project_q", "project_q"),
    "final_proj": ("final_proj", "project_hid"),
    "quantizer.logits": ("quantizer.weight_proj", "quantizer.weight_proj"),
    "widen": ("output_layer.0", ""),  # DistilHuBERT's heads
}
# ... and of single tensors; of several names the first that a file has is meant
_CONV = "encoder.pos_conv_embed.conv"
_WHOLE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mask_emb": (("mask_emb",), ("masked_spec_embed",)),
    "encoder.pos.gain": (
        ("encoder.pos_conv.0.weight_g",),
        (f"{_CONV}.parametrizations.weight.original0", f"{_CONV}.weight_g"),
    ),
    "encoder.pos.direction": (
        ("encoder.pos_conv.0.weight_v",),
        (f"{_CONV}.parametrizations.weight.original1", f"{_CONV}.weight_v"),
    ),
    "encoder.pos.bias": (("encoder.pos_conv.0.bias",), (f"{_CONV}.bias",)),
    "quantizer.vectors_GVC": (("quantizer.vars",), ("quantizer.codevectors",)),
    "clusters_VF": (("label_embs_concat",), ()),
    "heads_HDE": (("output_layer.2.weight",), ()),
    "heads_bias_HE": (("output_layer.2.bias",), ()),
}
_OURS = ("quantizer.temperature",)  # what nobody else keeps
# tensors that others hold in another shape, with the same numbers in the same order
_RESHAPED = ("quantizer.vectors_GVC", "attn.gate.scale_H", "heads_bias_HE")


def theirs(key: str, style: Style, *, conv_norm: str) -> tuple[str, ...]:
    """Return their names for one of our weights; the first that a file has is meant.

    Args:
        key: our name.
        style: whose names.
        conv_norm: ``group`` or ``layer``, which decides fairseq's numbering.

    Raises:
        LookupError: one of our own that they do not have.
    """
    if style == "torchaudio":
        return tuple(map(_torchaudio, theirs(key, "hf", conv_norm=conv_norm)))
    who = 0 if style == "fairseq" else 1
    part, _, leaf = key.rpartition(".")
    words = key.split(".")
    names: tuple[str, ...] = ()
    if key in _WHOLE:
        names = _WHOLE[key][who]
    elif part in _PARTS and _PARTS[part][who]:
        names = (f"{_PARTS[part][who]}.{leaf}",)
    elif key.startswith("encoder.pos.convs."):
        stack = (f"encoder.pos_conv.{words[3]}.0", f"encoder.pos_conv_embed.layers.{words[3]}.conv")
        names = (f"{stack[who]}.{leaf}",)
    elif key.startswith("teacher.") and style == "fairseq":  # data2vec's moving average
        (name,) = theirs(key.replace("teacher.", "encoder.", 1), style, conv_norm=conv_norm)
        names = (name.replace("encoder.", "_ema.", 1),)
    elif key.startswith("encoder.layers."):
        inner = ".".join(words[3:-1])
        if leaf == "scale_H":
            name = ("self_attn.grep_a", "attention.gru_rel_pos_const")[who]
        else:
            name = f"{_LAYER[inner][who]}.{leaf}"
        names = (f"encoder.layers.{words[2]}.{name}",)
    elif key.startswith("frontend.conv."):
        norm = "2.1" if conv_norm == "layer" else "2"
        kind = {"conv": ("0", "conv"), "norm": (norm, "layer_norm")}[words[3]][who]
        names = (f"feature_extractor.conv_layers.{words[2]}.{kind}.{leaf}",)
    if not names:
        raise LookupError(f"no foreign name is known for {key!r}")
    return names


def _torchaudio(name: str) -> str:
    """Return torchaudio's name for a weight that Hugging Face calls ``name``."""
    if name.startswith("encoder."):
        return f"encoder.transformer.{name.removeprefix('encoder.')}"
    if name == "masked_spec_embed":
        return "mask_generator.mask_embedding"
    return name.replace("feature_projection", "encoder.feature_projection")


def no_projection(config: Any) -> dict[str, Tensor]:
    """Return the identity as the projection where fairseq has none, because the widths agree."""
    if config.conv_channels != config.dim:
        return {}
    return {
        "frontend.proj.weight": torch.eye(config.dim),
        "frontend.proj.bias": torch.zeros(config.dim),
    }


def fill(
    model: Upstream,
    state: Mapping[str, Tensor],
    style: Style,
    *,
    where: object,
    defaults: Mapping[str, Tensor] | None = None,
) -> None:
    """Copy foreign weights into a model; every weight of both sides must find its partner.

    The model is one of front-end and shared Transformer: its config says how convolutions are
    normalised, which decides fairseq's numbering.

    Args:
        model: to fill.
        state: foreign name -> tensor.
        style: whose names they are.
        where: what error messages name.
        defaults: our name -> value for weights that the file may lack.

    Raises:
        ValueError: weights that are missing, left over, or of another shape.
    """
    defaults = defaults or {}
    own = model.state_dict()
    wanted: dict[str, str] = {}
    given: dict[str, str] = {}
    new: dict[str, Tensor] = {}
    used: set[str] = set()
    for key, tensor in own.items():
        if key in _OURS:
            new[key] = tensor
            continue
        names = theirs(key, style, conv_norm=model.config.conv_norm)
        name = next((name for name in names if name in state), None)
        if name is None:
            if key in defaults:
                new[key] = defaults[key]
            else:
                wanted[names[0]] = str(tuple(tensor.shape))
            continue
        used.add(name)
        value = state[name]
        if key.endswith(_RESHAPED) and value.numel() == tensor.numel():
            value = value.reshape(tensor.shape)
        wanted[name], given[name] = str(tuple(tensor.shape)), str(tuple(value.shape))
        new[key] = value.to(torch.float32)
    given.update({name: str(tuple(state[name].shape)) for name in state if name not in used})
    difference = diff(wanted, given)
    if difference:
        raise ValueError(f"{where} does not fit {model.name}: {difference}")
    model.load_state_dict(new, strict=True)
