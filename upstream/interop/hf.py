"""Hugging Face model directories: ``hf:<dir>``.

Reads ``config.json``, the weights (``model.safetensors``, its sharded form, or
``pytorch_model.bin`` read without executing anything) and ``preprocessor_config.json``, whose
``do_normalize`` says whether waveforms are normalised. Known: wav2vec 2.0, alone or with its
pretraining or CTC head (the latter is dropped).

Where the layers normalise first (``do_stable_layer_norm``), the last hidden state is taken after the
final layer norm, as SUPERB does; ``transformers`` lists it before. Waveforms are normalised with
sqrt(variance + 1e-7) as Hugging Face's feature extractor does; fairseq, which trained the published
models, adds 1e-5 (``normalize_eps``).
"""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop import keymap

logger = logging.getLogger(__name__)

PREFIX = "wav2vec2."
NORMALIZE_EPS = 1e-7
DROPPED = ("lm_head.",)  # heads that say nothing about the representation
# what a config may say only in one way, because nothing else is implemented
FIXED = {
    "hidden_act": ("gelu",),
    "feat_extract_activation": ("gelu",),
    "add_adapter": (False,),
    "adapter_attn_dim": (None,),
    "conv_bias": (True, False),
    "feat_extract_norm": ("group", "layer"),
}


def load(path: str | Path) -> Upstream:
    """Return the model in a Hugging Face directory.

    Raises:
        FileNotFoundError: no such directory, or a file that it needs is not there.
        ValueError: a model type or setting that is not known, or weights that do not fit.
    """
    from mynah.upstream.wav2vec2 import Wav2Vec2

    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no such directory: {folder} (models are not fetched by name: download it first, "
            "for example with 'hf download <id> --local-dir <dir>')"
        )
    settings = _json(folder / "config.json")
    kind = settings.get("model_type")
    if kind != "wav2vec2":
        raise ValueError(f"{folder}: model_type must be 'wav2vec2', got {kind!r}")
    state = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in _weights(folder).items()
        if not name.startswith(DROPPED)
    }
    config = wav2vec2_config(
        settings,
        objective="quantizer.codevectors" in state,
        normalize=_normalize(folder, settings),
        where=folder,
    )
    model = Wav2Vec2(config)
    keymap.fill(
        model,
        state,
        "hf",
        conv_norm=config.conv_norm,
        where=folder,
        defaults={"mask_emb": torch.zeros(config.dim)},  # absent where masking was switched off
    )
    return model


def wav2vec2_config(
    settings: Mapping[str, Any], *, objective: bool, normalize: bool, where: object
) -> Any:
    """Return our config for a ``config.json`` of model type wav2vec2.

    Args:
        settings: its contents; what is not there has the default of ``Wav2Vec2Config``.
        objective: whether the weights hold the quantiser.
        normalize: whether waveforms are normalised.
        where: what error messages name.

    Raises:
        ValueError: a setting that is not implemented.
    """
    from mynah.upstream.core.modelfolder import config_from
    from mynah.upstream.wav2vec2 import Config

    for key, allowed in FIXED.items():
        if key in settings and settings[key] not in allowed:
            raise ValueError(
                f"{where}: {key} is {settings[key]!r}, only "
                f"{' or '.join(map(repr, allowed))} is implemented"
            )
    channels = settings.get("conv_dim", [512] * 7)
    if len(set(channels)) != 1:
        raise ValueError(f"{where}: conv_dim must be one width for all layers, got {channels}")
    renamed = {
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
        "feature_dropout": "feat_quantizer_dropout",
        "groups": "num_codevector_groups",
        "codes": "num_codevectors_per_group",
        "code_dim": "codevector_dim",
        "final_dim": "proj_codevector_dim",
        "negatives": "num_negatives",
        "contrast_temperature": "contrastive_logits_temperature",
        "diversity_weight": "diversity_loss_weight",
    }
    values = {ours: settings[key] for ours, key in renamed.items() if key in settings}
    values.update(
        conv_channels=channels[0],
        norm="pre" if settings.get("do_stable_layer_norm", False) else "post",
        normalize=normalize,
        normalize_eps=NORMALIZE_EPS,
        objective=objective,
    )
    return config_from(Config, values, where=where)


def _normalize(folder: Path, settings: Mapping[str, Any]) -> bool:
    file = folder / "preprocessor_config.json"
    if file.is_file():
        return bool(_json(file).get("do_normalize", True))
    guess = bool(settings.get("feat_extract_norm", "group") == "layer")
    logger.warning(
        "%s has no preprocessor_config.json: waveforms are %snormalised, as is usual for "
        "feat_extract_norm=%r",
        folder,
        "" if guess else "not ",
        settings.get("feat_extract_norm", "group"),
    )
    return guess


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"not a Hugging Face model directory: {path} is not there")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a JSON object")
    return content


def _weights(folder: Path) -> dict[str, Tensor]:
    for name, read in (("model.safetensors", _safetensors), ("pytorch_model.bin", _bin)):
        if (folder / name).is_file():
            return read(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts: dict[str, Tensor] = {}
            names = _json(index).get("weight_map")
            if not isinstance(names, dict):
                raise ValueError(f"{index} has no weight_map")
            for shard in sorted(set(map(str, names.values()))):
                if Path(shard).name != shard or not (folder / shard).is_file():
                    raise ValueError(f"{index} names {shard!r}, which is not in {folder}")
                parts.update(read(folder / shard))
            if set(parts) != set(names):
                raise ValueError(f"{index} and its shards hold different weights")
            return parts
    raise FileNotFoundError(
        f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin nor their "
        "sharded form"
    )


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    return state


def _bin(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read without executing it: {error}. Convert it to safetensors "
            "with the program that wrote it"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"{path} is not a state dict")
    return dict(state)
