"""A family for tests: predicts the next 10 ms of a waveform's envelope with one hidden layer.

It has all that can break a resumption: dropout (torch's global generator), a mask drawn from the
batch's generator, a moving average updated after each step, a temperature that depends on the step.
An utterance whose id begins with ``bad`` gives a loss that is not a number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mynah.upstream.core.contract import Batch, Loss, Upstream


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 8
    dropout: float = 0.2
    unused: bool = False


CONFIGS = {"base": Config(), "tiny": Config(width=6)}


class Toy(Upstream):
    name = "toy"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.dim, self.num_layers, self.stride = config.width, 1, 160
        self.encode = nn.Linear(4, config.width)
        self.norm = nn.LayerNorm(config.width)
        self.decode = nn.Linear(config.width, 1)
        self.drop = nn.Dropout(config.dropout)
        if config.unused:
            self.spare = nn.Linear(3, 3)
        self.register_buffer("average", self.encode.weight.detach().clone())
        self.register_buffer("temperature", torch.tensor(2.0))

    def num_frames(self, n_samples: int) -> int:
        return max(1, n_samples // 160)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        yield torch.cat([torch.zeros(self.num_frames(len(w)), self.dim) for w in wavs])

    def loss(self, batch: Batch) -> Loss:
        size = int(batch.lengths_B.min()) // 160
        x_BT = batch.wav_BS[:, : size * 160].unflatten(1, (size, 160)).abs().mean(2) * 10
        keep = torch.rand(x_BT.shape, generator=batch.generator) > 0.1
        x_BNK = (x_BT * keep).unfold(1, 4, 1)[:, :-1]
        y_BN = x_BT[:, 4:]
        h_BND = self.drop(self.norm(torch.tanh(self.encode(x_BNK) / self.temperature)))
        error = (self.decode(h_BND).squeeze(2) - y_BN).square().mean()
        error = error + 0.01 * (self.encode.weight - self.average).square().mean()
        if any(name.rpartition("/")[2].startswith("bad") for name in batch.ids):
            error = error * float("nan")
        return Loss(
            total=error,
            parts={"mse": error.detach(), "peak": x_BT.max()},
            weight=float(y_BN.numel()),
        )

    def after_step(self, step: int, total_steps: int) -> None:
        with torch.no_grad():
            self.average.lerp_(self.encode.weight, 0.1)
            self.temperature.fill_(2.0 - step / total_steps)


MODEL = Toy
