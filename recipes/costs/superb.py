"""What SUPERB reports of an upstream's size: parameters, and multiply-accumulates in four buckets.

Every 82nd of LibriSpeech's 2 620 test-clean utterances, sorted by length, from the first on: 32
lengths from 1.3 to 20.4 s, eight of them in each bucket. Only the lengths matter: noise does.
Source: SUPERB's profiler (B06901052/DeepSpeed, branch superb-challenge).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from mynah.recipes.costs.closed import form_of
from mynah.recipes.costs.counter import UnknownOperationError, counting
from mynah.upstream.core.contract import Upstream

LENGTHS = (
    20560, 34560, 38480, 42560, 45600, 48720, 52000, 55120,
    59120, 62720, 66400, 71200, 75200, 78640, 82800, 87520,
    92720, 98560, 104400, 111120, 118480, 125040, 132720, 142640,
    154000, 166720, 180880, 197920, 217920, 239280, 268160, 326000,
)  # fmt: skip
"""Samples at 16 kHz."""
RATE = 16000
BUCKETS = ("short", "medium", "long", "longer")
SECONDS = sum(LENGTHS) / RATE  # 224.86

_POINTS = 4  # short lengths that are counted: three make a parabola, one checks it
_SHORTEST = 0.5  # seconds of the first of them

log = logging.getLogger(__name__)
_counted: dict[str, Macs | None] = {}  # by fingerprint, so that a bench counts each upstream once


@dataclass(frozen=True, kw_only=True)
class Macs:
    """Multiply-accumulates of the 32 utterances.

    Attributes:
        buckets: their sums by bucket, of eight utterances each.
        how: ``closed`` form, or counted at each length (``run``), or at a few (``fit``).
    """

    buckets: dict[str, int]
    how: Literal["closed", "run", "fit"]

    @property
    def total(self) -> int:
        """Of all 32."""
        return sum(self.buckets.values())

    @property
    def per_second(self) -> int:
        """Per second of audio, on the average of the 32."""
        return round(self.total / SECONDS)


def macs_of(upstream: Upstream) -> Macs:
    """Count an upstream: in closed form where it is of a family of ours, otherwise as it runs.

    Raises:
        UnknownOperationError: it runs an operation that the counter does not know.
    """
    lengths = [round(n * upstream.sample_rate / RATE) for n in LENGTHS]
    form = form_of(upstream)
    how: Literal["closed", "run", "fit"] = "closed"
    if form is not None:
        counts = [form(n) for n in lengths]
    else:
        counts, how = at_lengths(runner(upstream), lengths, stride=upstream.stride)
    size = len(lengths) // len(BUCKETS)
    sums = {name: sum(counts[i * size :][:size]) for i, name in enumerate(BUCKETS)}
    return Macs(buckets=sums, how=how)


def counted(upstream: Upstream, fingerprint: str) -> Macs | None:
    """Return the same, once for each fingerprint; None, and a warning, where it is not known."""
    if fingerprint not in _counted:
        try:
            _counted[fingerprint] = macs_of(upstream)
        except (UnknownOperationError, RuntimeError, NotImplementedError) as error:
            log.warning("the multiply-accumulates of this upstream are not known: %s", error)
            _counted[fingerprint] = None
    return _counted[fingerprint]


def runner(upstream: Upstream) -> Callable[[int], int]:
    """Return a function that counts the hidden states of n samples of noise as they run on a CPU."""
    model = upstream
    if upstream.device.type != "cpu":
        model = copy.deepcopy(upstream).to("cpu")

    def count(samples: int) -> int:
        wav_S = torch.randn(samples, generator=torch.Generator().manual_seed(samples)) / 10
        training = model.training
        model.eval()
        with counting() as counter:
            for _state in model.hidden_states([wav_S]):
                pass
        model.train(training)
        return counter.total

    return count


def at_lengths(
    count: Callable[[int], int], lengths: Sequence[int], *, stride: int
) -> tuple[list[int], Literal["run", "fit"]]:
    """Return the counts at long utterances without running most of them.

    Utterances whose samples leave the same rest when divided by the stride differ by whole frames,
    and every layer's share grows with the number of frames evenly or, in attention, with its
    square: three short ones determine a parabola, exactly, in integers. It is compared with a
    fourth one of each rest and with the longest of all; where it does not hold (windows, pieces,
    inputs of a fixed length), everything is counted as it runs.

    Args:
        count: samples -> multiply-accumulates.
        lengths: in samples.
        stride: samples between frames.

    Returns:
        The counts, and how they came about.
    """
    first = -(-int(_SHORTEST * RATE) // stride)
    found: dict[int, int] = {}
    for rest in sorted({n % stride for n in lengths}):
        mine = [n for n in lengths if n % stride == rest]
        start = rest + stride * first
        head = [count(start + stride * i) for i in range(_POINTS)]
        fitted = {n: _parabola(head, (n - start) // stride) for n in mine}
        longest = max(mine)
        if _parabola(head, _POINTS - 1) != head[-1] or (
            longest == max(lengths) and fitted[longest] != count(longest)
        ):
            return [count(n) for n in lengths], "run"
        found |= fitted
    return [found[n] for n in lengths], "fit"


def _parabola(head: Sequence[int], x: int) -> int:
    """Return the value at x of the parabola through (0, head[0]), (1, head[1]) and (2, head[2])."""
    slope, bend = head[1] - head[0], head[2] - 2 * head[1] + head[0]
    return head[0] + slope * x + bend * (x * (x - 1) // 2)
