"""Small models of every published form, and a waveform for them."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mynah import upstream
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Upstream

SHAPE: dict[str, Any] = {
    "conv_channels": 16, "dim": 16, "layers": 1, "heads": 2, "ffn": 32, "pos_kernel": 8,
    "pos_groups": 4,
}  # fmt: skip
# as published in everything but size: (family, variant, changes)
PUBLISHED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "wav2vec2": ("wav2vec2", "base", SHAPE | {"objective": False}),
    "wav2vec2 large": ("wav2vec2", "large", SHAPE | {"objective": False}),
    "hubert": ("hubert", "base", SHAPE),
    "wavlm": ("hubert", "wavlm", SHAPE),
    "data2vec": ("data2vec", "base", SHAPE | {"top_layers": 1}),
    "data2vec 2": ("data2vec", "base2", SHAPE | {"objective": False, "top_layers": 1}),
    "distilhubert": ("distilhubert", "base", SHAPE | {"teacher_dim": 16}),
    "autoencoder": ("autoencoder", "vae", {"dim": 16, "layers": 1, "heads": 2, "ffn": 32, "pos_groups": 4}),
    "apc": ("apc", "base", {"width": 16}),
    "mockingjay": ("mockingjay", "base", {"dim": 16, "layers": 1, "heads": 2, "ffn": 32}),
    "audio_albert": ("mockingjay", "audio_albert", {"dim": 16, "layers": 2, "heads": 2, "ffn": 32, "max_frames": 40}),
    "cpc": ("cpc", "base", {"channels": 16, "width": 12}),
    "cpc modified": ("cpc", "modified", {"channels": 16, "width": 16, "objective": False}),
    "wav2vec": ("wav2vec", "base", {"channels": 16}),
    "npc": ("npc", "base", {"dim": 16, "codes": (), "code_dims": ()}),
    "small apc": ("apc", "base", {"width": 16, "layers": 1}),
    "fbank": ("fbank", "base", {}),
    "fbank cmvn": ("fbank", "cmvn", {}),
    "byol": ("byol", "base", {"channels": (8, 8, 8), "embed_dim": 24, "objective": False}),
    "delores": ("delores", "base", {"channels": (8, 8, 8), "embed_dim": 24, "objective": False}),
}  # fmt: skip


def build(name: str) -> Upstream:
    family, variant, changes = PUBLISHED[name]
    module = upstream.get(family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Upstream = module.MODEL(dataclasses.replace(module.CONFIGS[variant], **changes))
    with torch.no_grad():
        for tensor in model.state_dict().values():  # batch norm as after training
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor += 0.5 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1))
    return model.freeze()


def saved(name: str, folder: Path) -> tuple[Path, Upstream]:
    model = build(name)
    modelfolder.save(model, folder)
    return folder, model


def wave(samples: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    tone = torch.sin(torch.arange(samples) * 0.05) * torch.linspace(0, 0.3, samples)
    return tone + 0.02 * torch.randn(samples, generator=generator)


def states(model: Upstream, wav_S: Tensor) -> Tensor:
    return torch.stack(list(model.hidden_states([wav_S])))
