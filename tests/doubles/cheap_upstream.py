"""A frozen upstream that costs nothing: frame means of the waveform times a weight per layer.

Run as a program it extracts slowly, so that a test can kill it: STORE COUNT SECONDS_PER_BATCH.
"""

import hashlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mynah.upstream.core.contract import Batch, Loss, Upstream
from mynah.upstream.store import Item


@dataclass(frozen=True, kw_only=True)
class Config:
    dim: int = 6
    layers: int = 3
    stride: int = 100
    gain: float = 1.0


class Cheap(Upstream):
    name = "cheap"

    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config or Config())
        self.dim = self.config.dim
        self.num_layers = self.config.layers
        self.stride = self.config.stride
        self.weight = torch.nn.Parameter(torch.linspace(-1, 2, self.dim) * self.config.gain)
        self.calls: list[int] = []
        self.pause = 0.0
        self.shift = 0.0

    def num_frames(self, n_samples: int) -> int:
        return max(1, n_samples // self.stride)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        self.calls.append(len(wavs))
        time.sleep(self.pause)
        rows = []
        for wav in wavs:
            keep = self.num_frames(len(wav)) * self.stride
            padded = torch.nn.functional.pad(wav, (0, max(0, keep - len(wav))))
            rows.append(padded[:keep].view(-1, self.stride).mean(1))
        values_N = torch.cat(rows)
        for layer in range(self.num_layers):
            yield (values_N[:, None] + layer + self.shift) * self.weight

    def loss(self, batch: Batch) -> Loss:
        raise NotImplementedError


def wave(seed: int, samples: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32)


def items(count: int, *, low: int = 1, high: int = 4000, prefix: str = "u") -> list[Item]:
    rng = np.random.default_rng(0)
    out = []
    for i in range(count):
        n = int(rng.integers(low, high))
        key = hashlib.sha256(f"{prefix}{i}".encode()).digest()[:16]
        out.append(Item(id=f"{prefix}{i}", key=key, num_samples=n, load=partial(wave, i, n)))
    return out


if __name__ == "__main__":
    from mynah.upstream.store import open_or_extract

    model = Cheap().freeze()
    model.pause = float(sys.argv[3])
    open_or_extract(
        sys.argv[1],
        model,
        items(int(sys.argv[2]), low=3000),
        kind="frames",
        batch_seconds=0.4,
        shard_bytes=1,
    )
