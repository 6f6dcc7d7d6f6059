"""What a pair is, and how far two upstreams are apart.

Shape suffixes: N frames of a ragged batch, D width.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mynah.upstream.core.contract import Batch, Upstream

ALLOWED = 1e-5  # relative difference of features and losses, float32
LENGTHS = (600, 16000, 23456)  # s3prl makes NaN of a single frame


@dataclass(frozen=True)
class Measured:
    """How far apart: largest relative differences.

    Attributes:
        features: over hidden states and utterances.
        loss: of the pretraining loss, None where the reference has none.
    """

    features: float
    loss: float | None = None

    @property
    def equal(self) -> bool:
        """Whether both are within what float32 allows."""
        return self.features <= ALLOWED and (self.loss is None or self.loss <= ALLOWED)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One of our families and a reference.

    Attributes:
        family: ours.
        reference: package and class.
        setting: which of its settings.
        measure: builds both in an empty folder and compares them.
    """

    family: str
    reference: str
    setting: str
    measure: Callable[[Path], Measured]

    def called(self, name: str) -> bool:
        """Whether ``name`` is the family or one of the words of its setting (``tera``)."""
        return name == self.family or name in self.setting.split(", ")

    @property
    def installed(self) -> bool:
        """Whether the reference's package is there."""
        try:
            importlib.metadata.version(self.reference.partition(" ")[0])
        except importlib.metadata.PackageNotFoundError:
            return False
        return True

    def __str__(self) -> str:
        return f"{self.family}, {self.reference}, {self.setting}"


def waves(lengths: Sequence[int] = LENGTHS) -> list[Tensor]:
    """Return the same noise at every call, one waveform per length."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return [0.1 * torch.randn(n, generator=generator) for n in lengths]


def noise_batch(sizes: Sequence[int]) -> Batch:
    """Return a batch of noise, the same at every call."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from mynah.upstream.core.contract import Batch

    return Batch(
        wav_BS=pad_sequence(waves(sizes), batch_first=True),
        lengths_B=torch.tensor(sizes),
        ids=tuple(str(row) for row in range(len(sizes))),
        generator=torch.Generator().manual_seed(0),
    )


def shake(module: nn.Module) -> nn.Module:
    """Move every weight a little: no unit gains and zero biases that would hide a swap."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return module.eval()


def built(make: Callable[[], nn.Module]) -> nn.Module:
    """Return what ``make`` builds, with weights of seed 0, shaken, in eval mode."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return shake(make())


def distance(ours: Upstream, theirs: Upstream, *, skip: int = 0) -> float:
    """Return the largest ||a - b|| / ||b|| over hidden states and utterances.

    The reference hears one utterance at a time, ours all of them at once.

    Args:
        ours: our upstream.
        theirs: the reference as an upstream.
        skip: states at the start that are known to be counted differently.

    Raises:
        ValueError: other numbers of states, frames or dimensions.
    """
    wavs = waves()
    ours.freeze()
    frames = [ours.num_frames(len(wav)) for wav in wavs]
    if frames != [theirs.num_frames(len(wav)) for wav in wavs]:
        raise ValueError(f"{ours.name} yields other numbers of frames than its reference")
    states = [state_ND.split(frames) for state_ND in ours.hidden_states(wavs)]
    worst = 0.0
    for index, wav in enumerate(wavs):
        expected = list(theirs.hidden_states([wav]))
        if len(expected) != len(states):
            raise ValueError(f"{ours.name}: {len(states)} states, expected {len(expected)}")
        for layer in range(skip, len(states)):
            worst = max(worst, relative(states[layer][index], expected[layer]))
    return worst


def apart(got: Tensor, want: Tensor) -> float:
    """Return |got - want| / |want| of two losses."""
    return relative(got.detach().reshape(1), want.detach().reshape(1))


def relative(got: Tensor, want: Tensor) -> float:
    """Return ||got - want|| / ||want||, infinite where shapes differ or numbers are not finite."""
    if got.shape != want.shape:
        return float("inf")
    error = float((got.double() - want.double()).norm() / want.double().norm())
    return error if error == error else float("inf")  # NaN is not itself
