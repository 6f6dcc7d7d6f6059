"""DinoSR from its authors' fairseq checkpoints, DinoSR and SpidR from those of SpidR's code.

fairseq keeps the teacher among the weights, as ``_ema``, and the codebooks as ``_codebook<i>``; what
is read can be pretrained further where all of these are there and targets are made as ours are.

SpidR's code saves ``model`` alone: ``student``, ``teacher``, query, key and value in one matrix that
usually has no bias (ours has one, of zeros then), and codebooks. Settings are in a ``config.json``
beside the file, if anywhere: without one the published shape is assumed, and as nothing says then
which of the two methods it is, what is read yields features only.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.modelfolder import config_from
from mynah.upstream.interop import keymap
from mynah.upstream.interop.filling import at, fill
from mynah.upstream.interop.settings import (
    fairseq_name,
    fairseq_values,
    only,
    read_json,
    renamed,
)

logger = logging.getLogger(__name__)

_FIXED = {"discrete": (True,), "layer_norm_first": (False,)}
_FAIRSEQ = {
    "mask_prob": "mask_prob",
    "mask_length": "mask_length",
    "top_layers": "average_top_k_layers",
    "codes": "codebook_size",
    "code_decay": "codebook_init_decay",
    "ema_start": "ema_decay",
    "ema_end": "ema_end_decay",
    "ema_anneal": "ema_anneal_end_step",
    "freeze": "freeze_teacher_step",
}
# how targets are made where ours can go on from theirs
_TARGETS = {
    "instance_norm_target_layer": True,
    "layer_norm_target_layer": False,
    "batch_norm_target_layer": False,
    "group_norm_target_layer": False,
    "ema_layers_only": True,
    "freeze_pre_enc_modules": True,
}
_SPIDR = {
    "conv_bias": "extractor_conv_bias",
    "dim": "encoder_embed_dim",
    "layers": "encoder_num_layers",
    "heads": "encoder_num_heads",
    "ffn": "encoder_ff_interm_features",
    "pos_groups": "encoder_pos_conv_groups",
    "pos_depth": "encoder_pos_conv_depth",
    "dropout": "encoder_dropout",
    "attention_dropout": "encoder_attention_dropout",
    "activation_dropout": "encoder_ff_interm_dropout",
    "input_dropout": "encoder_projection_dropout",
    "layerdrop": "encoder_layer_drop",
    "top_layers": "num_codebooks",
    "codes": "codebook_size",
    "code_decay": "codebook_decay",
    "ema_start": "ema_start_decay",
    "ema_end": "ema_final_decay",
    "ema_anneal": "ema_final_step",
    "freeze": "freeze_step",
}
_OBJECTIVE = re.compile(r"(_ema|teacher|heads|codebooks)\.|_codebook")
_SUMS, _COUNTS, _RESTS = "codebook.sums_GVD", "codebook.counts_GV", "front_rests"


def fairseq(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    task: Mapping[str, Any],
    path: str | Path,
) -> Upstream | None:
    """Return the DinoSR of a fairseq checkpoint, None where it holds another model.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    if fairseq_name(model) != "dinosr":
        return None
    only(model, _FIXED, where=path)
    values = {**fairseq_values(model, task, where=path), **renamed(model, _FAIRSEQ)}
    if not isinstance(values.get("ema_anneal"), int | float):
        values.pop("ema_anneal", None)  # a reference to the length of their run
    values["freeze"] = max(0, values.get("freeze", 200001))  # theirs: -1 for never
    decay = model.get("codebook_init_decay")
    objective = (
        all(model.get(key, value) == value for key, value in _TARGETS.items())
        and model.get("codebook_end_decay", decay) == decay
        and any(key.startswith("_ema.") for key in weights)
        and "_codebook0" in weights
    )
    state = _joined(weights, "_codebook{}", "_codebook_cnts{}")
    return _filled({**values, "objective": objective}, state, _fairseq_key, path)


def s3prl(content: Mapping[str, Any], path: str | Path) -> Upstream | None:
    """Return the DinoSR or SpidR that SpidR's code saved, None where the file holds something else.

    Raises:
        ValueError: a setting that is not implemented, or weights that do not fit.
    """
    weights = {
        str(name).removeprefix("module."): value
        for name, value in at(content, "model").items()
        if isinstance(value, Tensor)
    }
    if "student.layers.0.attention.qkv.weight" not in weights:
        return None
    beside = Path(path).with_name("config.json")
    settings = read_json(beside) if beside.is_file() else None
    values = _spidr_values(settings or {}, path)
    if settings is None:
        logger.warning(
            "%s has no config.json beside it: the published shape is assumed, and it yields features "
            "only",
            path,
        )
    weights.pop("current_step", None)
    state = dict(_separate(_joined(weights, "codebooks.{}.codebook", "codebooks.{}.counts")))
    return _filled({**values, "objective": settings is not None}, state, _spidr_key, path)


def _filled(
    values: Mapping[str, Any],
    state: dict[str, Tensor],
    name: Callable[[str], str],
    path: str | Path,
) -> Upstream:
    """Return the model with foreign weights, without the objective's where it is not wanted."""
    from mynah.upstream.dinosr import Config, DinoSr

    if not values["objective"]:
        state = {
            key: tensor
            for key, tensor in state.items()
            if not _OBJECTIVE.match(key) and key not in (_SUMS, _COUNTS)
        }
    ours = DinoSr(config_from(Config, values, where=path))
    own = ours.state_dict()
    if _RESTS in own:
        state[_RESTS] = own[_RESTS]  # follows from the step, nobody keeps it
    return fill(ours, state, name, path)


def _joined(weights: Mapping[str, Tensor], codebook: str, counts: str) -> dict[str, Tensor]:
    """Return the weights with the codebooks of all layers in one tensor, and their counts."""
    state = dict(weights)
    for ours, theirs in ((_SUMS, codebook), (_COUNTS, counts)):
        each: list[Tensor] = []
        while (name := theirs.format(len(each))) in state:
            each.append(state.pop(name))
        if each:
            state[ours] = torch.stack(each)
    return state


def _separate(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights, query, key and value each by itself and with a bias."""
    for name, tensor in weights.items():
        place, packed, leaf = name.rpartition(".qkv.")
        if not packed:
            yield name, tensor
            continue
        for part, rows in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{place}.{part}_proj.{leaf}", rows
            if f"{place}.qkv.bias" not in weights:
                yield f"{place}.{part}_proj.bias", rows.new_zeros(len(rows))


def _spidr_values(settings: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """Return our settings for those of SpidR's ``config.json``, whole or of the model alone."""
    model = at(settings, "model") or dict(settings)
    masking = at(settings, "masking")
    kind = at(settings, "run").get("model_type", "spidr" if "ema_timescale" in model else "dinosr")
    only(model, {"encoder_layer_norm_first": (False,)}, where=path)
    values = renamed(model, _SPIDR)
    values.update(renamed(masking, {"mask_prob": "mask_prob", "mask_length": "mask_length"}))
    convolutions = model.get("extractor_conv_layer_config")
    if convolutions:
        if len({layer[0] for layer in convolutions}) != 1:
            raise ValueError(f"{path}: the convolutions must have one width, got {convolutions}")
        values["conv_channels"] = convolutions[0][0]
        values["conv_kernels"] = [layer[1] for layer in convolutions]
        values["conv_strides"] = [layer[2] for layer in convolutions]
    if model.get("extractor_mode") == "group_norm":
        values["conv_norm"] = "group"
    if model.get("encoder_pos_conv_kernel"):
        depth = values.get("pos_depth", 5)
        values["pos_kernel"] = max(3, model["encoder_pos_conv_kernel"] // depth)
    values["mask_min_spans"] = 2
    if kind == "spidr":
        values.update(read="each", teacher_start="random", layerdrop=values.get("layerdrop", 0.0))
        values["ema_timescale"] = float(model.get("ema_timescale", 20000.0))
    return values


def _fairseq_key(key: str) -> str:
    """Return fairseq's name of one of our weights."""
    if key.startswith(("heads.", "codebook.", _RESTS)):
        return key
    return keymap.theirs(key, "fairseq", conv_norm="layer")[0]


def _spidr_key(key: str) -> str:
    """Return the name of one of our weights in SpidR's code."""
    if key.startswith(("codebook.", _RESTS)):
        return key
    if key == "mask_emb":
        return "mask_embedding"
    if key.startswith("heads."):
        _, number, leaf = key.split(".")
        return f"heads.{number}.0.{leaf}"
    side = "teacher" if key.startswith("teacher.") else "student"
    name = keymap.theirs(key.replace("teacher.", "encoder.", 1), "hf", conv_norm="layer")[0]
    if name.startswith("encoder."):
        name = f"{side}.{name.removeprefix('encoder.')}"
    name = re.sub(r"pos_conv_embed\.layers\.(\d+)\.conv\.", r"pos_conv_embed.convs.\1.", name)
    return name.replace("attention.out_proj", "attention.proj")
