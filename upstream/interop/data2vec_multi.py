"""data2vec 2.0 (audio) from fairseq's checkpoints, where it is ``data2vec_multi``.

Names there: ``modality_encoders.AUDIO`` holds front-end, positions, the scale of ALiBi, the norm before
the first block and, with ``prenet_depth`` above 0, the first blocks; ``blocks`` the (other) blocks, query,
key and value in one matrix; ``_ema`` the same of the teacher, without the front-end. Where the teacher and
the decoder are there and the targets are made as ours are, what is read can be pretrained further; else
it yields features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.modelfolder import config_from, diff
from mynah.upstream.interop.settings import fairseq_values, only, renamed

NAME = "data2vec_multi"
AUDIO = "modality_encoders.AUDIO."
TEACHER = "_ema."
_FIXED = {
    "layer_norm_first": (False,),
    "norm_affine": (True,),
    "shared_decoder": (None,),
    "cls_loss": (0,),
    "recon_loss": (0,),
}
_FIXED_AUDIO = {
    "num_extra_tokens": (0,),
    "use_alibi_encoder": (True,),
    "learned_alibi": (False,),
    "learned_alibi_scale_per_layer": (False,),
    "conv_pos_pre_ln": (False,),
}
# how targets and masks are made where ours can go on from theirs
_TARGETS = {
    "instance_norm_target_layer": True,
    "layer_norm_target_layer": False,
    "batch_norm_target_layer": False,
    "instance_norm_targets": False,
    "layer_norm_targets": False,
    "end_of_block_targets": False,
    "ema_encoder_only": False,
    "loss_beta": 0,
    "loss_scale": None,
}
_MASKS = {
    "inverse_mask": False,
    "add_masks": False,
    "mask_dropout": 0,
    "mask_channel_prob": 0,
    "keep_masked_pct": 0,
    "encoder_zero_mask": True,
    "ema_local_encoder": False,
}
_MODEL = {
    "top_layers": "average_top_k_layers",
    "ema_start": "ema_decay",
    "ema_end": "ema_end_decay",
    "ema_anneal": "ema_anneal_end_step",
    "clones": "clone_batch",
    "norm_eps": "norm_eps",
}
_MASKING = {
    "mask_prob": "mask_prob",
    "mask_length": "mask_length",
    "mask_noise": "mask_noise_std",
}
_DECODER = {
    "decoder_dim": "decoder_dim",
    "decoder_groups": "decoder_groups",
    "decoder_kernel": "decoder_kernel",
    "decoder_depth": "decoder_layers",
    "decoder_dropout": "input_dropout",
}
_DEFAULTS = {  # what fairseq has where a setting is not there
    "depth": 8, "num_heads": 12, "norm_eps": 1e-6, "encoder_dropout": 0.1, "attention_dropout": 0.1,
    "activation_dropout": 0.0, "dropout_input": 0.0, "layerdrop": 0.0, "embed_dim": 768,
    "mlp_ratio": 4, "average_top_k_layers": 8, "clone_batch": 1, "ema_decay": 0.999,
    "ema_end_decay": 0.9999, "ema_encoder_only": True, "instance_norm_target_layer": False,
}  # fmt: skip
_DEFAULTS_AUDIO = {
    "prenet_depth": 4, "use_alibi_encoder": False, "extractor_mode": "layer_norm",
    "conv_pos_width": 95, "conv_pos_groups": 16, "conv_pos_depth": 5, "mask_prob": 0.7,
    "mask_length": 5, "mask_noise_std": 0.01, "local_grad_mult": 1.0,
}  # fmt: skip
_DEFAULTS_DECODER = {
    "decoder_dim": 384, "decoder_groups": 16, "decoder_kernel": 5, "decoder_layers": 5,
    "input_dropout": 0.1,
}  # fmt: skip


def read(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    task: Mapping[str, Any],
    path: str | Path,
) -> Upstream:
    """Return the data2vec 2.0 of a fairseq checkpoint.

    Args:
        weights: name -> tensor, those of the teacher too.
        model: the model's settings.
        task: the task's settings.
        path: what error messages name.

    Raises:
        ValueError: no audio, a setting that is not implemented, or weights that do not fit.
    """
    from mynah.upstream.data2vec import Config, Data2Vec

    settings = {**_DEFAULTS, **model}
    modalities = settings.get("modalities") or {}
    if not isinstance(modalities.get("audio"), Mapping):
        raise ValueError(f"{path}: a data2vec 2.0 without audio; it has {', '.join(modalities)}")
    audio = {**_DEFAULTS_AUDIO, **modalities["audio"]}
    decoder = {**_DEFAULTS_DECODER, **(audio.get("decoder") or {})}
    only(settings, _FIXED, where=path)
    only(audio, _FIXED_AUDIO, where=path)
    objective = _can_go_on(weights, settings, audio, decoder)
    values = {
        **fairseq_values(_first_version(settings, audio), task, where=path),
        **renamed(settings, _MODEL),
        **renamed(audio, _MASKING),
        **renamed(decoder, _DECODER),
        "bias": "alibi",
        "objective": objective,
    }
    if not isinstance(values.get("ema_anneal"), int | float):
        values.pop("ema_anneal", None)  # a reference to the length of their run
    if not objective:
        values["clones"] = max(1, int(values["clones"]))
    ours = Data2Vec(config_from(Config, values, where=path))
    _fill(ours, weights, int(audio["prenet_depth"]), path)
    return ours


def _first_version(settings: Mapping[str, Any], audio: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings by the names that the first version's have."""
    width = int(settings["embed_dim"])
    return {
        "conv_feature_layers": audio.get("feature_encoder_spec"),
        "extractor_mode": audio["extractor_mode"],
        "conv_bias": False,
        "conv_pos": audio["conv_pos_width"],
        "conv_pos_groups": audio["conv_pos_groups"],
        "pos_conv_depth": audio["conv_pos_depth"],
        "encoder_layers": int(settings["depth"]) + int(audio["prenet_depth"]),
        "encoder_embed_dim": width,
        "encoder_ffn_embed_dim": int(width * settings["mlp_ratio"]),
        "encoder_attention_heads": settings["num_heads"],
        "dropout": settings["encoder_dropout"],
        "attention_dropout": settings["attention_dropout"],
        "activation_dropout": settings["activation_dropout"],
        "dropout_input": settings["dropout_input"],
        "encoder_layerdrop": settings["layerdrop"],
        "feature_grad_mult": audio["local_grad_mult"],
    }


def _can_go_on(
    weights: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    audio: Mapping[str, Any],
    decoder: Mapping[str, Any],
) -> bool:
    """Return whether the objective is there, and is ours."""
    return (
        all(settings.get(key, value) == value for key, value in _TARGETS.items())
        and all(audio.get(key, value) == value for key, value in _MASKS.items())
        and decoder.get("projection_layers", 1) == 1
        and decoder.get("decoder_residual", True)
        and f"{AUDIO}decoder.proj.weight" in weights
        and any(name.startswith(TEACHER) for name in weights)
    )


def _fill(ours: Upstream, weights: Mapping[str, Tensor], prenet: int, path: str | Path) -> None:
    """Copy the weights; every one of both sides must find its partner.

    Raises:
        ValueError: weights that are missing, left over, or of another shape.
    """
    own = ours.state_dict()
    state = dict(_separate(weights))
    if getattr(ours, "teacher", None) is None:
        state = {
            name: tensor
            for name, tensor in state.items()
            if not name.startswith((TEACHER, f"{AUDIO}decoder."))
        }
    names = {key: _theirs(key, prenet) for key in own}
    values = {
        names[key]: _scale(state[names[key]], tensor)
        if key.endswith("scale_H")
        else state[names[key]]
        for key, tensor in own.items()
        if names[key] in state
    }
    left = {name: tensor for name, tensor in state.items() if name not in values}
    difference = diff(
        {names[key]: str(tuple(tensor.shape)) for key, tensor in own.items()},
        {name: str(tuple(tensor.shape)) for name, tensor in {**values, **left}.items()},
    )
    if difference:
        raise ValueError(f"{path} does not fit {ours.name}: {difference}")
    ours.load_state_dict({key: values[name].float() for key, name in names.items()}, strict=True)


def _separate(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights, query, key and value each by itself."""
    for name, tensor in weights.items():
        head, found, leaf = name.rpartition(".qkv.")
        if not found:
            yield name, tensor
            continue
        if len(tensor) % 3:
            raise ValueError(f"{name} has {len(tensor)} rows: no query, key and value of one width")
        for part, rows in zip("qkv", tensor.chunk(3), strict=True):
            yield f"{head}.{part}.{leaf}", rows


def _scale(theirs: Tensor, ours: Tensor) -> Tensor:
    """Return the scale of ALiBi of every head; theirs has one for all, or (1, 1, H, 1, 1)."""
    flat = theirs.reshape(-1)
    return flat.expand(len(ours)).clone() if len(flat) == 1 else flat


def _theirs(key: str, prenet: int) -> str:
    """Return fairseq's name of one of our weights."""
    words = key.split(".")
    side = TEACHER if words[0] == "teacher" else ""
    leaf = words[-1]
    if words[0] == "frontend":
        if words[1] == "conv":
            return f"{AUDIO}local_encoder.conv_layers.{words[2]}.{'0' if words[3] == 'conv' else '2.1'}.{leaf}"
        return f"{AUDIO}project_features.{'1' if words[1] == 'norm' else '2'}.{leaf}"
    if words[0] == "decoder":
        inner = f"blocks.{words[2]}.0" if words[1] == "convs" else "proj"
        return f"{AUDIO}decoder.{inner}.{leaf}"
    if words[1] == "pos":
        return f"{side}{AUDIO}relative_positional_encoder.{int(words[3]) + 1}.0.{leaf}"
    if words[1] == "bias":
        return f"{side}{AUDIO}alibi_scale"
    if words[1] == "norm":
        return f"{side}{AUDIO}context_encoder.norm.{leaf}"
    number = int(words[2])
    block = (
        f"blocks.{number - prenet}"
        if number >= prenet
        else f"{AUDIO}context_encoder.blocks.{number}"
    )
    inner = ".".join(words[3:-1])
    part = {"attn.o": "attn.proj", "ff1": "mlp.fc1", "ff2": "mlp.fc2"}.get(inner, inner)
    return f"{side}{block}.{part}.{leaf}"
