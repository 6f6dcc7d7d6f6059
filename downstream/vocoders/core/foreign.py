"""Other people's vocoder checkpoints, read as they were published.

- HiFi-GAN (github.com/jik876/hifi-gan): a file ``g_02500000`` that holds ``generator``, beside
  ``config.json``. Weight norms, of whichever version of torch, are folded.
- Vocos (github.com/gemelo-ai/vocos): ``pytorch_model.bin`` beside ``config.yaml``, or the ``state_dict``
  of a Lightning checkpoint.

Nothing in a file is executed: weights are read by ``torch.load(weights_only=True)``. The config says
which spectrogram the vocoder takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah.downstream.core.melspec import MelSpec
from mynah.downstream.vocoders.core.neural import Generator, NeuralVocoder
from mynah.files import sha256_of

MAX_CONFIG_BYTES = 1 << 20


def read(path: Path) -> NeuralVocoder:
    """Return the vocoder of a checkpoint: of its file, or of the folder that holds it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no checkpoint of a kind that is known, or one that is not whole; the message says
            what is missing or different.
    """
    if not path.exists():
        raise FileNotFoundError(f"no such vocoder: {path}")
    folder = path if path.is_dir() else path.parent
    if (folder / "config.json").is_file():
        return _hifigan(_weights(path, r"g_\d+|generator.*"), folder / "config.json")
    for name in ("config.yaml", "config.yml"):
        if (folder / name).is_file():
            return _vocos(_weights(path, r"pytorch_model\.bin|.*\.ckpt"), folder / name)
    raise ValueError(
        f"{path} is no vocoder that can be read: a HiFi-GAN has config.json beside g_XXXXXXXX, a Vocos "
        "config.yaml beside pytorch_model.bin, one of ours is a run of mynah pretrain vocoder/..."
    )


def _weights(path: Path, pattern: str) -> Path:
    """Return the file of the weights: the one that is named, or the last in a folder."""
    if path.is_file():
        return path
    found = sorted(p for p in path.iterdir() if re.fullmatch(pattern, p.name))
    if not found:
        raise ValueError(f"{path} holds no weights: no file whose name is {pattern}")
    return found[-1]


def _hifigan(weights: Path, config: Path) -> NeuralVocoder:
    from mynah.downstream.vocoders import hifigan

    try:
        values = _mapping(json.loads(_text(config)), config)
    except json.JSONDecodeError as error:
        raise ValueError(f"{config} is not JSON: {error}") from error
    if "generator" not in (content := _load(weights)):
        raise ValueError(f"{weights} has no key 'generator': it has {', '.join(map(str, content))}")
    if str(values.get("resblock")) not in ("1", "2"):
        raise ValueError(f"{config}: resblock must be 1 or 2, got {values.get('resblock')!r}")
    rate = _number(values, "sampling_rate", config)
    try:
        made = hifigan.Config(
            rates=tuple(values["upsample_rates"]),
            kernels=tuple(values["upsample_kernel_sizes"]),
            channels=values["upsample_initial_channel"],
            block=1 if str(values["resblock"]) == "1" else 2,
            block_kernels=tuple(values["resblock_kernel_sizes"]),
            dilations=tuple(map(tuple, values["resblock_dilation_sizes"])),
        )
        spec = MelSpec(
            sample_rate=int(rate),
            n_fft=int(_number(values, "n_fft", config)),
            window=int(_number(values, "win_size", config)),
            hop=int(_number(values, "hop_size", config)),
            num_mels=int(values.get("num_mels", 80)),
            low=float(values.get("fmin") or 0.0),
            high=float(values.get("fmax") or rate / 2),
            centred=False,
        )
        generator = hifigan.HiFiGANGenerator(made, spec, norm=False)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{config} is not a HiFi-GAN that can be built: {error}") from error
    names = [(r"conv_pre", "first"), (r"conv_post", "last"), (r"ups", "ups")]
    names += [(r"resblocks\.(\d+)\.convs1?", r"blocks.\1.first")]
    names += [(r"resblocks\.(\d+)\.convs2", r"blocks.\1.second")]
    _fill(generator, _renamed(folded(content["generator"]), names), weights)
    return hifigan.HiFiGAN(generator, digest=sha256_of(weights))


def _vocos(weights: Path, config: Path) -> NeuralVocoder:
    import yaml

    from mynah.downstream.vocoders import vocos

    try:
        values = _mapping(yaml.safe_load(_text(config)), config)
    except yaml.YAMLError as error:
        raise ValueError(f"{config} is not YAML: {error}") from error
    values = values.get("model", {}).get("init_args", values)  # as a training config has it
    parts = {}
    for part, name in (
        ("feature_extractor", "MelSpectrogramFeatures"),
        ("backbone", "VocosBackbone"),
        ("head", "ISTFTHead"),
    ):
        said = _mapping(values.get(part), f"{config}: {part}")
        if str(said.get("class_path")).rpartition(".")[2] != name:
            raise ValueError(
                f"{config}: {part} must be a {name}, got {said.get('class_path')}: a vocoder of log-mel "
                "spectrograms is wanted"
            )
        parts[part] = said.get("init_args") or {}
    mel, body, head = parts["feature_extractor"], parts["backbone"], parts["head"]
    if body.get("adanorm_num_embeddings"):
        raise ValueError(f"{config}: a backbone with adanorm_num_embeddings is not of spectrograms")
    padding = mel.get("padding", "center")
    if head.get("padding", "same") != padding:
        raise ValueError(f"{config}: features and head pad differently ({padding} and {head})")
    rate = int(mel.get("sample_rate", 24000))
    size = int(mel.get("n_fft", 1024))
    try:
        made = vocos.Config(
            dim=body["dim"],
            inner=body["intermediate_dim"],
            layers=body["num_layers"],
            fft=head["n_fft"],
        )
        spec = MelSpec(
            sample_rate=rate,
            n_fft=size,
            window=size,
            hop=int(mel.get("hop_length", 256)),
            num_mels=int(mel.get("n_mels", 100)),
            low=float(mel.get("f_min") or 0.0),
            high=float(mel.get("f_max") or rate / 2),
            scale=mel.get("mel_scale", "htk"),
            area=mel.get("norm") == "slaney",
            floor=1e-7,
            centred=padding == "center",
        )
        generator = vocos.VocosGenerator(made, spec)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{config} is not a Vocos that can be built: {error}") from error
    content = _load(weights)
    content = content.get("state_dict", content)
    names = [
        (r"backbone\.embed", "first"),
        (r"backbone\.norm", "first_norm"),
        (r"backbone\.convnext\.(\d+)\.dwconv", r"blocks.\1.mix"),
        (r"backbone\.convnext\.(\d+)\.norm", r"blocks.\1.norm"),
        (r"backbone\.convnext\.(\d+)\.pwconv1", r"blocks.\1.widen"),
        (r"backbone\.convnext\.(\d+)\.pwconv2", r"blocks.\1.narrow"),
        (r"backbone\.convnext\.(\d+)\.gamma", r"blocks.\1.scale_D"),
        (r"backbone\.final_layer_norm", "last_norm"),
        (r"head\.out", "last"),
    ]
    # a training checkpoint has discriminators and windows beside it
    of_it = {
        name: tensor
        for name, tensor in content.items()
        if name.startswith(("backbone.", "head.")) and not name.endswith("istft.window")
    }
    _fill(generator, _renamed(of_it, names), weights)
    return vocos.Vocos(generator, digest=sha256_of(weights))


_PAIRS = (
    ("weight_v", "weight_g"),
    ("parametrizations.weight.original1", "parametrizations.weight.original0"),
)


def folded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with every direction and its length made one (Salimans and Kingma 2016).

    Args:
        state: old names of the two are ``weight_v`` and ``weight_g``, new ones
            ``parametrizations.weight.original1`` and ``original0``; other weights are left alone.

    Raises:
        ValueError: a direction without a length.
    """
    out = {}
    for name, tensor in state.items():
        for direction, length in _PAIRS:
            stem = name.removesuffix(direction)
            if stem != name:
                if stem + length not in state:
                    raise ValueError(f"{name} has no {stem + length} beside it")
                norm = tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.ndim - 1))
                out[f"{stem}weight"] = tensor * (state[stem + length] / norm)
                break
            if name.endswith(length):
                break
        else:
            out[name] = tensor
    return out


def _renamed(state: Mapping[str, Tensor], names: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    out = {}
    for name, tensor in state.items():
        for pattern, ours in names:
            new, found = re.subn(rf"^{pattern}(?=\.|$)", ours, name)
            if found:
                break
        else:
            new = name
        out[new] = tensor
    return out


def _fill(generator: Generator, state: Mapping[str, Tensor], where: Path) -> None:
    """Put weights into a generator whose names and shapes they must match."""
    wanted = {name: tuple(tensor.shape) for name, tensor in generator.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    problems = [f"{name} {shape} is missing" for name, shape in wanted.items() if name not in given]
    problems += [
        f"{name} {shape} is too many" for name, shape in given.items() if name not in wanted
    ]
    problems += [
        f"{name} is {given[name]}, its config says {shape}"
        for name, shape in wanted.items()
        if given.get(name, shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"{where} does not fit its config: {'; '.join(problems[:5])}{more}")
    generator.load_state_dict({name: tensor.float() for name, tensor in state.items()})


def _load(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises its own, pickle's and zip's errors
        raise ValueError(
            f"{path} is not a checkpoint of plain tensors: {' '.join(str(error).split())[:200]}"
        ) from error
    return _mapping(content, path)


def _text(path: Path) -> str:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes: not a config")
    return path.read_text("utf-8")


def _mapping(value: Any, where: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be a mapping, got {type(value).__name__}")
    return value


def _number(values: Mapping[str, Any], name: str, where: Path) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where}: {name} must be a number, got {value!r}")
    return float(value)
