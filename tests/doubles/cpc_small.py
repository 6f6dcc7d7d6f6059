"""A small CPC, lengths at the edges of its frames, and how far apart two results are."""

import torch
from torch import Tensor

from mynah.upstream.cpc import Config, Cpc

MICRO = Config(
    channels=12, norm="channel", width=12, steps=3, negatives=5, predictor_heads=3,
    predictor_ffn=16, predictor_distances=4, dropout=0.0,
)  # fmt: skip
LENGTHS = (1, 158, 159, 160, 318, 319, 320, 479, 16000, 40007)


def make(config: Config, seed: int = 0) -> Cpc:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Cpc(config)


def relative(x: Tensor, reference: Tensor) -> float:
    x, reference = x.detach().double(), reference.detach().double()
    return float((x - reference).norm() / reference.norm())
