"""Somebody else's model as an upstream: one utterance at a time, its lengths learnt by asking.

Shape suffixes: S samples, T frames, D width, L layers, N frames of the batch laid end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mynah.upstream.core.contract import Batch, Loss, Upstream
from mynah.upstream.core.narrow_convs import bf16_is_right

States = Callable[[nn.Module, Tensor], Sequence[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Config:
    """What identifies a wrapped model beside its weights.

    Attributes:
        name: what it is called in tables.
        identity: whatever else its features depend on (sha256 of its code, a version).
    """

    name: str
    identity: str = ""


def call(module: nn.Module, wav_1S: Tensor) -> Sequence[Tensor]:
    """Return the states of a module that maps (1, S) to (1, T, D), or to a list or dict of them.

    Raises:
        ValueError: it returns anything else.
    """
    out = module(wav_1S)
    given = type(out).__name__
    if isinstance(out, Mapping):  # as s3prl's experts
        given = f"a {given} of {', '.join(map(str, out)) or 'nothing'}"
        out = out.get("hidden_states")
    states = [out] if isinstance(out, Tensor) else out
    if not isinstance(states, list | tuple) or not all(isinstance(s, Tensor) for s in states):
        raise ValueError(
            f"{type(module).__name__}.forward must return a tensor (1, T, D), a list of such, or a "
            f"dict with such a list as hidden_states; got {given}"
        )
    return list(states)


class SingleUtterance(Upstream):
    """Runs any module one utterance at a time, hence independent of neighbours and padding.

    Width, number of states and the shortest input are found by running it on silence. An input
    too short for one frame is zero-padded to the shortest that yields one.
    """

    name = "foreign"

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str,
        stride: int,
        sample_rate: int = 16000,
        identity: str = "",
        states: States = call,
        count: Callable[[int], int] | None = None,
    ) -> None:
        """Wrap a module.

        Args:
            module: the model; it is put into eval mode.
            name: what it is called.
            stride: samples between frames.
            sample_rate: Hz it expects.
            identity: see :class:`Config`.
            states: maps the module and a waveform (1, S) to its hidden states, each (1, T, D).
            count: number of frames of n samples where it yields any, else 0; by default found by
                running the module on silence, once for each length.

        Raises:
            ValueError: no states come out of four seconds of silence, or of different shapes.
        """
        super().__init__(Config(name=name, identity=identity))
        self.sample_rate = sample_rate  # type: ignore[misc]  # a family has one, a wrapper any
        self.module = module.eval()
        self.stride = stride
        self._states = states
        self._count = count
        self._counts: dict[int, int] = {}
        self._lower = False  # whether it computes in bfloat16
        probe = self._run(torch.zeros(4 * sample_rate, device=self.device))
        shapes = {tuple(state.shape) for state in probe}
        if len(shapes) != 1 or probe[0].ndim != 3 or probe[0].shape[0] != 1:
            raise ValueError(
                f"{name}: expected hidden states of one shape (1, T, D) from a waveform (1, S), "
                f"got shapes {sorted(shapes)}"
            )
        self.num_layers = len(probe)
        self.dim = probe[0].shape[2]
        self._shortest = self._find_shortest()

    def num_frames(self, n_samples: int) -> int:
        """Return the module's number of frames for ``n_samples``, at least one."""
        if n_samples < 1:
            raise ValueError(f"an utterance has at least one sample, got {n_samples}")
        return self._frames(max(n_samples, self._shortest))

    def prepare_inference(self) -> None:
        """Decide whether it computes in bfloat16."""
        self._lower = self.precision == "bf16" and bf16_is_right(self.module, self.device)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the states (N, D); the whole batch's states are held at once."""
        runs = []
        for wav in wavs:
            padded = nn.functional.pad(wav, (0, max(0, self._shortest - len(wav))))
            states = self._run(padded)
            self._counts[len(padded)] = states[0].shape[1]
            runs.append(states)
        for layer in range(self.num_layers):
            yield torch.cat([states[layer][0] for states in runs])

    def loss(self, batch: Batch) -> Loss:
        """Refuse: a wrapped model is for measuring.

        Raises:
            TypeError: always.
        """
        raise TypeError(f"{self.config.name} is wrapped for its features and has no objective here")

    def _run(self, wav_S: Tensor) -> list[Tensor]:
        autocast = torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._lower)
        with torch.no_grad(), autocast:
            wav_1S = wav_S.to(self.device, torch.float32)[None]
            return [state.float() for state in self._states(self.module, wav_1S)]

    def _frames(self, n_samples: int) -> int:
        if self._count is not None:
            return self._count(n_samples)
        if n_samples not in self._counts:
            try:
                states = self._run(torch.zeros(n_samples, device=self.device))
                self._counts[n_samples] = states[0].shape[1]
            except (RuntimeError, ValueError, IndexError, AssertionError):
                if n_samples >= 4 * self.sample_rate:
                    raise
                self._counts[n_samples] = 0  # too short for its convolutions
        return self._counts[n_samples]

    def _find_shortest(self) -> int:
        """Return the fewest samples that yield a frame, by bisection."""
        low, high = 0, 4 * self.sample_rate  # low yields none, high yields some
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._frames(middle) > 0 else (middle, high)
        return high
