"""Somebody else's model as an upstream, whose number of frames follows a formula.

Shape suffixes: N frames of the batch laid end to end, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from mynah.upstream.core.single import SingleUtterance

# lengths around the edges of frames of 20, 10 and fewer milliseconds
VERIFIED = (400, 401, 559, 560, 561, 719, 720, 721, 1600, 15999, 16000, 16001, 16079, 16080, 40007)


class Wrapped(SingleUtterance):
    """Somebody else's model, one utterance at a time, whose number of frames is guessed once.

    With nearly all models it is floor((n - a) / stride) + b. ``a`` and ``b`` are found by running
    the model on silence, and the formula is compared with the model at lengths around every kind
    of edge; a model that it does not describe is asked anew for each length. Every utterance is
    checked against what was promised.
    """

    def __init__(self, module: nn.Module, **options: Any) -> None:
        super().__init__(module, **options)
        self._count = self._formula()

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the states (N, D).

        Raises:
            RuntimeError: the model yields another number of frames than it did for silence.
        """
        promised = sum(self.num_frames(len(wav)) for wav in wavs)
        for states_ND in super().hidden_states(wavs):
            if len(states_ND) != promised:
                raise RuntimeError(
                    f"{self.config.name} yields {len(states_ND)} frames where silence of the same "
                    f"lengths yields {promised}: its number of frames depends on the audio"
                )
            yield states_ND

    def _formula(self) -> Callable[[int], int] | None:
        low = max(16000, self._shortest)
        base = self._frames(low)
        high = low + 2 * self.stride
        while high - low > 1:  # the first length with more frames than 16000 samples have
            middle = (low + high) // 2
            low, high = (middle, high) if self._frames(middle) == base else (low, middle)
        edge, stride, shortest = high, self.stride, self._shortest

        def count(n_samples: int) -> int:
            return 0 if n_samples < shortest else base + 1 + (n_samples - edge) // stride

        lengths = [n for n in VERIFIED if n >= shortest] + [shortest, shortest + 1]
        return count if all(count(n) == self._frames(n) for n in lengths) else None
