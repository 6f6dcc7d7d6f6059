"""Small data2vec models of both versions, batches of noise, and draws of masks."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from mynah.upstream.core.contract import Batch
from mynah.upstream.data2vec import Config, Data2Vec

CALM: dict[str, Any] = {
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "layerdrop": 0.0,
    "decoder_dropout": 0.0,
}
SIZE: dict[str, Any] = {"dim": 48, "layers": 3, "heads": 6, "ffn": 96, "top_layers": 2}
WAVE = Config(conv_channels=32, **SIZE, **CALM)
MEL = Config(**{**SIZE, **CALM, "front": "mel", "num_mels": 10, "pos_kernel": 5})
SECOND = dataclasses.replace(
    MEL,
    clones=3,
    bias="alibi",
    mask_prob=0.5,
    mask_length=3,
    decoder_dim=32,
    decoder_kernel=5,
    decoder_depth=3,
)


def build(config: Config, seed: int = 0) -> Data2Vec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Data2Vec(config)
        for p in model.parameters():  # the teacher's move too, so that it is not the student
            p.data += 0.05 * torch.randn_like(p)
    return model


def draw(model: Data2Vec, data: Batch) -> tuple[Tensor, Tensor | None]:
    """Masks, and noise for the second version."""
    mask_RT = model.draw_mask(data)
    noise_MD = torch.randn(int(mask_RT.sum()), model.dim, generator=data.generator)
    return mask_RT, noise_MD if model.config.clones else None
