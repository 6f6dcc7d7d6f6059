"""fairseq-style checkpoints: ``fairseq:<file.pt>``.

A pickled dictionary with ``model`` (the weights) and ``cfg`` or, older, ``args`` (the settings),
or s3prl's converted form (``model_weight``, ``model_cfg``, ``task_cfg``). It is read by
:mod:`mynah.upstream.interop.unpickle`, which executes nothing. Known: wav2vec 2.0, as pretrained or
fine-tuned with CTC (the head is dropped).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop import keymap
from mynah.upstream.interop.unpickle import plain, read

FINE_TUNED = "w2v_encoder.w2v_model."
DROPPED = ("w2v_encoder.proj.",)
BASE_CONV = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"
MAX_LAYERS = 64


def load(path: str | Path) -> Upstream:
    """Return the model in a fairseq-style checkpoint.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint that can be read without executing it, a model or setting that
            is not known, or weights that do not fit.
    """
    from mynah.upstream.wav2vec2 import Wav2Vec2

    content = read(path)
    weights = content.get("model", content.get("model_weight"))
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        raise ValueError(
            f"{path} is not a fairseq-style checkpoint: it needs 'model' (or 'model_weight'), a "
            f"dictionary of tensors; it has {', '.join(map(str, content)) or 'nothing'}"
        )
    model_settings, task_settings = _settings(content, path)
    state = {
        str(name).removeprefix(FINE_TUNED): tensor
        for name, tensor in weights.items()
        if not str(name).startswith(DROPPED)
    }
    config = wav2vec2_config(
        model_settings, task_settings, objective="quantizer.vars" in state, where=path
    )
    model = Wav2Vec2(config)
    defaults: dict[str, Tensor] = {}
    if config.conv_channels == config.dim:  # fairseq then has no projection
        defaults["frontend.proj.weight"] = torch.eye(config.dim)
        defaults["frontend.proj.bias"] = torch.zeros(config.dim)
    keymap.fill(model, state, "fairseq", conv_norm=config.conv_norm, where=path, defaults=defaults)
    return model


def _settings(content: Mapping[str, Any], path: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model's and the task's settings of a checkpoint of any age."""
    if content.get("model_cfg") is not None:
        model, task = plain(content["model_cfg"]), plain(content.get("task_cfg"))
    elif content.get("cfg") is not None:
        cfg = plain(content["cfg"])
        cfg = cfg if isinstance(cfg, dict) else {}
        model, task = cfg.get("model"), cfg.get("task")
    elif content.get("args") is not None:
        model = task = plain(content["args"])
    else:
        raise ValueError(f"{path} has no settings: none of 'cfg', 'args' and 'model_cfg'")
    if not isinstance(model, dict):
        raise ValueError(f"{path}: the model's settings are not a mapping of names to values")
    inner = model.get("w2v_args")  # a fine-tuned model keeps its pretraining settings here
    if isinstance(inner, dict):
        model = inner["model"] if isinstance(inner.get("model"), dict) else inner
    return model, task if isinstance(task, dict) else {}


def wav2vec2_config(
    model: Mapping[str, Any], task: Mapping[str, Any], *, objective: bool, where: object
) -> Any:
    """Return our config for fairseq's settings; what is not there has fairseq's default.

    Raises:
        ValueError: another model, or a setting that is not implemented.
    """
    from mynah.upstream.core.modelfolder import config_from
    from mynah.upstream.wav2vec2 import Config

    name = model.get("_name", model.get("arch", "wav2vec2"))
    if name not in ("wav2vec2", "wav2vec_ctc"):
        raise ValueError(f"{where} holds a {name!r}, only 'wav2vec2' is known")
    fixed = {
        "activation_fn": ("gelu",),
        "quantizer_depth": (1,),
        "same_quantizer": (False,),
        "target_glu": (False,),
        "negatives_from_everywhere": (False,),
        "cross_sample_negatives": (0,),
        "codebook_negatives": (0,),
        "quantize_input": (False,),
        "layer_type": ("transformer",),
        "pos_conv_depth": (1,),
        "conv_pos_batch_norm": (False,),
        "extractor_mode": ("default", "layer_norm"),
    }
    for key, allowed in fixed.items():
        if model.get(key) is not None and model[key] not in allowed:
            raise ValueError(
                f"{where}: {key} is {model[key]!r}, only {' or '.join(map(repr, allowed))} is "
                "implemented"
            )
    convolutions = conv_layers(model.get("conv_feature_layers") or BASE_CONV)
    if len({channels for channels, _, _ in convolutions}) != 1:
        raise ValueError(f"{where}: the convolutions must have one width, got {convolutions}")
    renamed = {
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
        "feature_dropout": "dropout_features",
        "front_grad": "feature_grad_mult",
        "mask_prob": "mask_prob",
        "mask_length": "mask_length",
        "groups": "latent_groups",
        "codes": "latent_vars",
        "negatives": "num_negatives",
        "contrast_temperature": "logit_temp",
    }
    values = {ours: model[key] for ours, key in renamed.items() if model.get(key) is not None}
    final = model.get("final_dim") or model.get("encoder_embed_dim", 768)
    temperature = model.get("latent_temp")
    if isinstance(temperature, str):
        temperature = ast.literal_eval(temperature)
    if temperature is not None:
        values.update(zip(("gumbel_start", "gumbel_end", "gumbel_decay"), temperature, strict=True))
    values.update(
        conv_channels=convolutions[0][0],
        conv_kernels=[kernel for _, kernel, _ in convolutions],
        conv_strides=[stride for _, _, stride in convolutions],
        conv_norm="layer" if model.get("extractor_mode") == "layer_norm" else "group",
        norm="pre" if model.get("layer_norm_first") else "post",
        normalize=bool(task.get("normalize", model.get("normalize", False))),
        final_dim=final,
        code_dim=model.get("latent_dim") or final,
        objective=objective,
    )
    return config_from(Config, values, where=where)


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
