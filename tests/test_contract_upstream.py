"""The upstream contract: kept by every family, and able to catch those who break it."""

import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mynah.upstream
from mynah.upstream.core import clauses
from mynah.upstream.core.clauses import CLAUSES, check
from mynah.upstream.core.contract import Batch, Features, Loss, Precision, Upstream

FAMILIES = mynah.upstream.available()
LARGEST = 4_000_000


def variants() -> list[str]:
    """Every variant that a test can afford, by parameter count."""
    names = []
    for family in FAMILIES:
        for variant in mynah.upstream.get(family).CONFIGS:
            with torch.device("meta"):
                model = mynah.upstream.build(f"{family}/{variant}")
            if sum(p.numel() for p in model.parameters()) <= LARGEST:
                names.append(f"{family}/{variant}")
    return names


VARIANTS = variants()


def test_enough_families_are_checked() -> None:
    assert {"apc", "fbank", "mockingjay", "wav2vec2"} <= set(FAMILIES)
    assert {name.partition("/")[0] for name in VARIANTS} == set(FAMILIES)


@pytest.mark.parametrize("name", VARIANTS)
def test_contract(name: str) -> None:
    outcome = {c.name: c for c in check(mynah.upstream.build(name))}
    assert len(outcome) == len(CLAUSES) == 10
    broken = [f"{c.name}: {c.why}" for c in outcome.values() if c.status == "FAIL"]
    assert not broken, "\n".join(broken)
    skipped = {c.name for c in outcome.values() if c.status == "SKIP"}
    assert skipped <= {"bf16", "cost"}


# -- those who break it -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 6


class Sound(Upstream):
    """A window of 400 samples every 320, a linear layer, another one: keeps every clause."""

    name = "sound"
    stride = 320
    num_layers = 2

    def __init__(self) -> None:
        super().__init__(Config())
        self.dim = self.config.width
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Linear(400, self.dim)
        self.second = nn.Linear(self.dim, self.dim)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator)

    def num_frames(self, n_samples: int) -> int:
        return 1 + max(0, n_samples - 400) // 320

    def frames(self, wav: Tensor) -> Tensor:
        return nn.functional.pad(wav, (0, max(0, 400 - len(wav)))).unfold(0, 400, 320)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        weight = self.first.weight
        if self.precision == "bf16":
            weight = weight.bfloat16().float()
        x = torch.cat([self.frames(wav) for wav in wavs]) @ weight.T
        yield x
        yield self.second(x.tanh())

    def loss(self, batch: Batch) -> Loss:
        return Loss(total=self.first.weight.sum())


class SeesNeighbours(Sound):
    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        for x in super().hidden_states(wavs):
            yield x - x.mean(dim=0)


class SlightlySeesNeighbours(Sound):
    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        for x in super().hidden_states(wavs):
            yield x * (1 + 3e-5 * len(wavs))


class SeesPadding(Sound):
    def forward(self, wav_BS: Tensor, lengths_B: Tensor) -> Features:
        features = super().forward(wav_BS, lengths_B)
        features.layers_LBTD[..., 0] += wav_BS.mean(dim=1)[None, :, None]
        return features


class LeavesPaddingDirty(Sound):
    def forward(self, wav_BS: Tensor, lengths_B: Tensor) -> Features:
        features = super().forward(wav_BS, lengths_B)
        dirty = features.layers_LBTD + 1e-9 * (features.layers_LBTD == 0)
        return Features(layers_LBTD=dirty, lengths_B=features.lengths_B)


class Miscounts(Sound):
    def num_frames(self, n_samples: int) -> int:
        return max(1, n_samples // 320)


class MiscountsOneLength(Sound):
    def num_frames(self, n_samples: int) -> int:
        return super().num_frames(n_samples) + (n_samples == 16001)


class TakesEmpty(Sound):
    def forward(self, wav_BS: Tensor, lengths_B: Tensor) -> Features:
        return super().forward(wav_BS, lengths_B.clamp_min(1))


class WrongStride(Sound):
    stride = 160


class WrongWidth(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.dim = 7


class WrongLayers(Sound):
    num_layers = 3


class TrainsItself(Sound):
    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        with torch.no_grad():
            self.second.bias += 0.01
        yield from super().hidden_states(wavs)


class Unfreezes(Sound):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)

    def train(self, mode: bool = True) -> Any:
        return nn.Module.train(self, mode)


class KeepsGradient(Sound):
    def freeze(self, precision: Precision = "fp32") -> Any:
        super().freeze(precision)
        self.second.requires_grad_(True)
        return self


class StillHasLoss(Sound):
    def freeze(self, precision: Precision = "fp32") -> Any:
        super().freeze(precision)
        del self.loss
        return self


class DrawsRandomNumbers(Sound):
    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        for x in super().hidden_states(wavs):
            if random.random() >= 0:
                yield x


class IsRandom(Sound):
    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        for x in super().hidden_states(wavs):
            yield x + 1e-6 * torch.rand(())


class FailsOnSilence(Sound):
    def frames(self, wav: Tensor) -> Tensor:
        x = super().frames(wav)
        return x / x.abs().max()


class CoarseInHalf(Sound):
    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        for x in super().hidden_states(wavs):
            yield (x * 4).round() / 4 if self.precision == "bf16" else x


class StaysHalf(Sound):
    def prepare_inference(self) -> None:
        if self.precision == "bf16":
            self.first.weight.copy_(self.first.weight.bfloat16())


class PaysForPadding(Sound):
    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        top = max(map(len, wavs))
        padded = [nn.functional.pad(wav, (0, top - len(wav))) for wav in wavs]
        counts = [self.num_frames(len(wav)) for wav in wavs]
        for x in super().hidden_states(padded):
            parts = x.split(self.num_frames(top))
            yield torch.cat([part[:n] for part, n in zip(parts, counts, strict=True)])


def outcome(upstream: Upstream) -> dict[str, tuple[str, str]]:
    return {c.name: (c.status, c.why) for c in check(upstream)}


def test_a_sound_stranger_passes() -> None:
    found = outcome(Sound())
    assert {name for name, (status, _) in found.items() if status == "FAIL"} == set()
    assert found["round_trip"][0] == "SKIP"
    assert "1.00 x" in found["cost"][1]


class IgnoresPrecision(Sound):
    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        x = torch.cat([self.frames(wav) for wav in wavs]) @ self.first.weight.T
        yield x
        yield self.second(x.tanh())


@pytest.mark.parametrize(
    ("able", "why"), [(False, "the CPU has no bfloat16 instructions"), (True, "changes no bit")]
)
def test_bf16_that_changes_nothing_is_not_a_pass(
    able: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clauses, "cpu_multiplies_bf16", lambda: able)
    model = IgnoresPrecision().freeze()
    with pytest.raises(clauses.Skip, match=why):
        clauses.bf16(model, clauses.Signals(model, 0))


@pytest.mark.parametrize(
    ("kind", "clause", "why"),
    [
        (WrongWidth, "facts", r"float32 \(N, 7\)"),
        (WrongLayers, "facts", "num_layers is 3, hidden_states yields 2"),
        (WrongStride, "facts", "100 strides of 160 samples add 50 frames"),
        (Miscounts, "num_frames", r"samples: num_frames \d+, state 0 \d+"),
        (MiscountsOneLength, "num_frames", "16001 samples: num_frames 50, state 0 49"),
        (TakesEmpty, "num_frames", "0 samples is not refused"),
        (SeesNeighbours, "invariance", "allowed 1e-05"),
        (SlightlySeesNeighbours, "invariance", "allowed 1e-05"),
        (SeesPadding, "padding", "1.0 in the padding"),
        (LeavesPaddingDirty, "padding", "not exactly zero"),
        (IsRandom, "determinism", "two calls differ"),
        (DrawsRandomNumbers, "determinism", "draws from a global random generator"),
        (TrainsItself, "frozen", r"features change|changes weights"),
        (Unfreezes, "frozen", "switches to training mode: the model, first, second, dropout"),
        (KeepsGradient, "frozen", r"requires a gradient: second\.weight, second\.bias"),
        (StillHasLoss, "frozen", r"loss\(\) of a frozen upstream is not refused"),
        (FailsOnSilence, "finite", "silence gives NaN"),
        (CoarseInHalf, "bf16", "allowed 5%"),
        (StaysHalf, "bf16", "fp32 after bf16 is not the same"),
        (PaysForPadding, "cost", "allowed 1.1"),
    ],
)
def test_broken_upstreams_fail_their_clause(kind: type[Sound], clause: str, why: str) -> None:
    import re

    status, measured = outcome(kind())[clause]
    assert status == "FAIL"
    assert re.search(why, measured), measured


class FailsOnOneFrame(Sound):
    """As a deviation with n - 1 in the denominator does."""

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        counts = [self.num_frames(len(wav)) for wav in wavs]
        for x in super().hidden_states(wavs):
            yield torch.cat([p if len(p) > 1 else p * torch.nan for p in x.split(counts)])


def test_a_nan_is_the_fault_of_one_clause_only() -> None:
    found = {c.name: c for c in check(FailsOnOneFrame())}
    assert [name for name, c in found.items() if c.status == "FAIL"] == ["finite"]
    assert "1 samples (1 frames) give NaN" in found["finite"].why
