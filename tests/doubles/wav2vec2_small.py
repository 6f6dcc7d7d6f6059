"""Small wav2vec 2.0 models of both normalisations."""

from typing import Any

import torch

from mynah.upstream.wav2vec2 import Config, Wav2Vec2

SMALL: dict[str, Any] = {
    "conv_channels": 32,
    "dim": 64,
    "layers": 2,
    "heads": 4,
    "ffn": 128,
    "code_dim": 16,
    "final_dim": 24,
    "codes": 8,
    "negatives": 7,
}
POST = Config(**SMALL)
PRE = Config(**SMALL, conv_bias=True, conv_norm="layer", normalize=True, norm="pre")


def build(config: Config, seed: int = 0) -> Wav2Vec2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Wav2Vec2(config)
        for p in model.parameters():  # no unit gains and zero biases that hide a swap
            p.data += 0.05 * torch.randn_like(p)
    return model
