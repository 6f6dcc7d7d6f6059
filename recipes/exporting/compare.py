"""Is an exported model the model? Both hear the same waveforms of several lengths.

Shape suffixes: S samples, L layers, T frames, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.nasty import relative, together

ALLOWED = 1e-4  # largest relative difference of a hidden state
LENGTHS = (5000, 16000, 23457, 52801)  # samples; 16000 is the recordings' own
_SHORT = 1600  # samples below which a waveform grows
_HOP = 160


class MismatchError(Exception):
    """An exported model computes something else; the message says where and by how much."""

    exit_code = 1


class Heard(NamedTuple):
    """One waveform.

    Attributes:
        samples: its length.
        frames: that both made of it.
        difference: largest relative difference of a hidden state.
    """

    samples: int
    frames: int
    difference: float


def lengths(shortest: int, limit: int | None, *, limited: bool) -> list[int]:
    """Return the lengths to compare at: the edges of what is promised, and some between.

    Args:
        shortest: fewest samples.
        limit: samples up to which an utterance is one piece, None where it always is.
        limited: whether longer ones are refused.
    """
    chosen = {shortest, shortest + 1, *LENGTHS}
    if limit is not None:
        chosen |= {limit} if limited else {limit, limit + 1, limit + LENGTHS[0]}
    return sorted(n for n in chosen if n >= shortest and not (limited and limit and n > limit))


def wave(samples: int) -> Tensor:
    """Return a waveform (S,): noise and a tone under a slow envelope, the same at every call.

    A short one is a piece of noise that comes again every 10 ms, four times as loud. Normalised
    over two frames, all that counts of a bin is which frame is louder: noise has bins where both
    are alike, of which nothing would be left but rounding.
    """
    generator = torch.Generator().manual_seed(samples)
    time_S = torch.arange(samples)
    if samples <= _SHORT:
        noise_S = torch.randn(_HOP, generator=generator)[time_S % _HOP]
        return 0.2 * noise_S * 4.0 ** ((time_S - samples) / _HOP)
    envelope_S = 0.55 - 0.45 * torch.cos(2 * torch.pi * 3 * time_S / 16000 + 1)
    noise_S = torch.randn(samples, generator=generator).clamp(-3, 3)
    return envelope_S * (0.05 * noise_S + 0.2 * torch.sin(2 * torch.pi * 220 * time_S / 16000))


def compare(
    model: Upstream,
    heard: Callable[[Tensor], Tensor],
    *,
    shortest: int,
    limit: int | None = None,
    limited: bool = False,
    what: str,
) -> list[Heard]:
    """Return how far apart they are at each length.

    Args:
        model: frozen.
        heard: (1, S) -> (L, T, D), the exported one, loaded back.
        shortest: fewest samples that it takes.
        limit: samples up to which an utterance is one piece, if there is such a number.
        limited: whether it takes no longer ones.
        what: name of the export, for the message.

    Raises:
        MismatchError: another shape, a NaN, or a difference above what is allowed.
    """
    found = []
    for n in lengths(shortest, limit, limited=limited):
        wav_S = wave(n)
        expected_LTD = together(model, [wav_S]).layers_LBTD[:, 0]
        states_LTD = heard(wav_S[None])
        if states_LTD.shape != expected_LTD.shape:
            raise MismatchError(
                f"{what} is not {model.name}: of {n} samples it makes states of shape "
                f"{tuple(states_LTD.shape)}, {model.name} {tuple(expected_LTD.shape)}"
            )
        difference = relative(states_LTD, expected_LTD)
        if not difference <= ALLOWED:
            raise MismatchError(
                f"{what} is not {model.name}: at {n} samples a hidden state differs by "
                f"{difference:.1e} relative, allowed {ALLOWED:.0e}"
            )
        found.append(Heard(n, states_LTD.shape[1], difference))
    return found
