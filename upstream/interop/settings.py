"""Other people's settings of the convolution stack and the shared Transformer, in our words.

What wav2vec 2.0, HuBERT, WavLM, data2vec and their distillates have in common, read once for fairseq
(and its copies in s3prl and WavLM), once for Hugging Face, and once off the modules of torchaudio. A
family's reader adds its own.
"""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

logger = logging.getLogger(__name__)

BASE_CONV = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"
MAX_LAYERS = 64
NORMALIZE_EPS = 1e-7  # of Hugging Face's feature extractor; fairseq adds 1e-5

# -- fairseq -----------------------------------------------------------------------------------

_FAIRSEQ_FIXED = {
    "activation_fn": ("gelu",),
    "layer_type": ("transformer",),
    "conv_pos_batch_norm": (False,),
    "extractor_mode": ("default", "layer_norm"),
}
_FAIRSEQ = {
    "conv_bias": "conv_bias",
    "dim": "encoder_embed_dim",
    "layers": "encoder_layers",
    "heads": "encoder_attention_heads",
    "ffn": "encoder_ffn_embed_dim",
    "pos_kernel": "conv_pos",
    "pos_groups": "conv_pos_groups",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "layerdrop": "encoder_layerdrop",
    "input_dropout": "dropout_input",
    "front_grad": "feature_grad_mult",
}


def fairseq_values(
    model: Mapping[str, Any], task: Mapping[str, Any], *, where: object
) -> dict[str, Any]:
    """Return the shared settings of a fairseq model; what is not there has fairseq's default.

    Args:
        model: the model's settings.
        task: the task's settings; ``normalize`` is looked for in both.
        where: what error messages name.

    Raises:
        ValueError: a setting that is not implemented.
    """
    only(model, _FAIRSEQ_FIXED, where=where)
    convolutions = conv_layers(model.get("conv_feature_layers") or BASE_CONV)
    if len({channels for channels, _, _ in convolutions}) != 1:
        raise ValueError(f"{where}: the convolutions must have one width, got {convolutions}")
    values = renamed(model, _FAIRSEQ)
    depth = model.get("pos_conv_depth") or 1
    if depth > 1:  # data2vec's stack, whose convolutions share the taps
        kernel = max(3, (model.get("conv_pos") or 128) // depth)
        values.update(position="conv-stack", pos_kernel=kernel, pos_depth=depth)
    values.update(
        conv_channels=convolutions[0][0],
        conv_kernels=[kernel for _, kernel, _ in convolutions],
        conv_strides=[stride for _, _, stride in convolutions],
        conv_norm="layer" if model.get("extractor_mode") == "layer_norm" else "group",
        norm="pre" if model.get("layer_norm_first") else "post",
        normalize=bool(task.get("normalize", model.get("normalize", False))),
    )
    return values


def fairseq_name(model: Mapping[str, Any]) -> str | None:
    """Return what fairseq calls the model of some settings; None where they do not say."""
    name = model.get("_name") or model.get("arch")
    return None if name is None else str(name)


def conv_layers(text: str) -> list[tuple[int, int, int]]:
    """Return (channels, kernel, stride) of each layer from fairseq's list expression.

    ``[(512, 10, 5)] + [(512, 3, 2)] * 4`` is read as a sum of repeated lists; nothing is evaluated.

    Raises:
        ValueError: anything else, or more than 64 layers.
    """

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return [*value(node.left), *value(node.right)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            items, times = value(node.left), ast.literal_eval(node.right)
            if not isinstance(times, int) or times > MAX_LAYERS:
                raise ValueError(f"cannot repeat {times} times")
            return items * times
        items = ast.literal_eval(node)
        if not isinstance(items, list):
            raise ValueError("not a list")
        return items

    try:
        layers = [
            tuple(int(n) for n in layer) for layer in value(ast.parse(text, mode="eval").body)
        ]
    except (ValueError, TypeError, SyntaxError, RecursionError) as error:
        raise ValueError(
            f"conv_feature_layers must look like {BASE_CONV!r}, got {text!r}"
        ) from error
    if not 1 <= len(layers) <= MAX_LAYERS or any(len(layer) != 3 for layer in layers):
        raise ValueError(f"conv_feature_layers must be 1 to {MAX_LAYERS} triples, got {text!r}")
    return [(layer[0], layer[1], layer[2]) for layer in layers]


# -- Hugging Face ------------------------------------------------------------------------------

_HF_FIXED = {
    "hidden_act": ("gelu",),
    "feat_extract_activation": ("gelu",),
    "add_adapter": (False,),
    "adapter_attn_dim": (None,),
    "conv_bias": (True, False),
    "feat_extract_norm": ("group", "layer"),
}
_HF = {
    "conv_kernels": "conv_kernel",
    "conv_strides": "conv_stride",
    "conv_bias": "conv_bias",
    "conv_norm": "feat_extract_norm",
    "dim": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "norm_eps": "layer_norm_eps",
    "pos_kernel": "num_conv_pos_embeddings",
    "pos_groups": "num_conv_pos_embedding_groups",
    "dropout": "hidden_dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "layerdrop": "layerdrop",
    "input_dropout": "feat_proj_dropout",
}


def hf_values(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the shared settings of a ``config.json``; what is not there keeps our default.

    Args:
        settings: its contents.
        folder: where its feature extractor's settings are, and what error messages name.

    Raises:
        ValueError: a setting that is not implemented.
    """
    only(settings, _HF_FIXED, where=folder)
    channels = settings.get("conv_dim", [512] * 7)
    if len(set(channels)) != 1:
        raise ValueError(f"{folder}: conv_dim must be one width for all layers, got {channels}")
    values = renamed(settings, _HF)
    values.update(
        conv_channels=channels[0],
        norm="pre" if settings.get("do_stable_layer_norm", False) else "post",
        normalize=normalizes(folder, settings),
        normalize_eps=NORMALIZE_EPS,
    )
    return values


def normalizes(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether a Hugging Face model expects waveforms of mean 0 and variance 1.

    ``preprocessor_config.json`` says so; where it is missing, models whose convolutions are
    normalised over channels do.
    """
    file = folder / "preprocessor_config.json"
    if file.is_file():
        return bool(read_json(file).get("do_normalize", True))
    guess = bool(settings.get("feat_extract_norm", "group") == "layer")
    logger.warning(
        "%s has no preprocessor_config.json: waveforms are %snormalised, as is usual for "
        "feat_extract_norm=%r",
        folder,
        "" if guess else "not ",
        settings.get("feat_extract_norm", "group"),
    )
    return guess


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a model directory.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"not a Hugging Face model directory: {path} is not there")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return content


# -- torchaudio --------------------------------------------------------------------------------

NORMALISED = ("large", "xlarge", "xlsr")  # but wav2vec2_large (960 h) was not


def is_normalised(factory: str) -> bool:
    """Return whether the published weights of a factory expect zero-mean, unit-variance audio."""
    return factory != "wav2vec2_large" and any(part in factory for part in NORMALISED)


def torchaudio_values(model: Any, factory: str) -> dict[str, Any]:
    """Return the shared settings of a ``torchaudio.models.Wav2Vec2Model``, read off its modules.

    Args:
        model: as built by a factory.
        factory: its name, which says whether waveforms are normalised.

    Raises:
        ValueError: a shape that is not implemented.
    """
    blocks = list(model.feature_extractor.conv_layers)
    transformer = model.encoder.transformer
    layer = transformer.layers[0]
    channels = {block.conv.out_channels for block in blocks}
    if len(channels) != 1:
        raise ValueError(f"torchaudio:{factory}: the convolutions must have one width: {channels}")
    return {
        "conv_channels": channels.pop(),
        "conv_kernels": [block.kernel_size for block in blocks],
        "conv_strides": [block.stride for block in blocks],
        "conv_bias": blocks[0].conv.bias is not None,
        "conv_norm": "group" if isinstance(blocks[0].layer_norm, nn.GroupNorm) else "layer",
        "normalize": is_normalised(factory),
        "dim": layer.attention.embed_dim,
        "layers": len(transformer.layers),
        "heads": layer.attention.num_heads,
        "ffn": layer.feed_forward.intermediate_dense.out_features,
        "norm": "pre" if layer.layer_norm_first else "post",
        "pos_kernel": transformer.pos_conv_embed.kernel_size,
        "pos_groups": transformer.pos_conv_embed.conv.groups,
        "dropout": layer.dropout.p,
        "attention_dropout": layer.attention.dropout,
        "activation_dropout": layer.feed_forward.intermediate_dropout.p,
        "layerdrop": transformer.layer_drop,
        "input_dropout": model.encoder.feature_projection.dropout.p,
    }


# -- all ---------------------------------------------------------------------------------------


def only(
    settings: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]], *, where: object
) -> None:
    """Refuse what may be set in one way only, because nothing else is implemented.

    A setting that is missing or None passes where None is not on its list.

    Raises:
        ValueError: a setting that is not implemented.
    """
    for key, values in allowed.items():
        if settings.get(key) is not None and settings[key] not in values:
            raise ValueError(
                f"{where}: {key} is {settings[key]!r}, only {' or '.join(map(repr, values))} is "
                "implemented"
            )


def renamed(settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return our name -> value for those of ``names`` (ours -> theirs) that are set."""
    return {ours: settings[key] for ours, key in names.items() if settings.get(key) is not None}
