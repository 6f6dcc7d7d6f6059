"""What every upstream promises.

An upstream is one speech SSL family: its paper's pretraining objective and its frozen features.

Shape suffixes: B batch, S samples, T frames, D width, L layers, N frames of a whole ragged batch
laid end to end.

The promises, held by ``mynah check upstream SPEC`` and by tests:

* *exact lengths*: ``num_frames(n)`` is the number of frames that ``n`` samples yield, always;
  an utterance shorter than one frame is zero-padded to exactly one frame, so ``n >= 1`` gives
  ``num_frames(n) >= 1``; an empty one is refused;
* *batch invariance*: an utterance's features do not depend on its neighbours or on padding
  (fp32: at most 1e-5 relative to running it alone);
* *frozen by construction*: after :meth:`Upstream.freeze` the model is in eval mode, nothing
  requires a gradient, and ``loss`` is refused;
* *states as SUPERB counts them*: ``num_layers`` hidden states of one width ``dim`` at one
  ``stride``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Features:
    """Hidden states of a padded batch.

    Attributes:
        layers_LBTD: float32 hidden states; exact zeros after each utterance's last frame.
        lengths_B: int64 number of frames of each utterance.
    """

    layers_LBTD: Tensor
    lengths_B: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Unlabelled audio for a pretraining step.

    Attributes:
        wav_BS: float32 waveforms in [-1, 1], zero-padded on the right.
        lengths_B: int64 number of true samples of each utterance.
        ids: utterance ids, for error messages.
        generator: the CPU generator from which masks, negatives and crops are drawn, so that a
            resumed run draws the same ones (dropout uses torch's global generator).
        labels: int64 pseudo-labels of each utterance, one per frame of the model (its first
            ``num_frames(length)``), where the run was given any; else None.
        speakers_B: int64 index of each utterance's speaker among those of the run, for models that
            ask for it; else None.
    """

    wav_BS: Tensor
    lengths_B: Tensor
    ids: tuple[str, ...]
    generator: torch.Generator
    labels: tuple[Tensor, ...] | None = None
    speakers_B: Tensor | None = None

    def wavs(self) -> list[Tensor]:
        """Return each utterance's true samples, 1-D."""
        return [wav[: int(n)] for wav, n in zip(self.wav_BS, self.lengths_B, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A differentiable total and the named scalars to log.

    Attributes:
        total: scalar tensor to differentiate.
        parts: name -> detached scalar (loss terms, accuracies, perplexities, variances).
        weight: how many items the total is a mean over (frames, masked frames); the loop uses it
            to report averages.
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    weight: float = 1.0


class Upstream(nn.Module, ABC):
    """Base class of every upstream; subclasses set the four facts and three methods.

    Attributes:
        name: family, the stem of the file that defines it.
        sample_rate: Hz of the waveforms it takes.
        dim: width D of every hidden state.
        num_layers: number of hidden states L.
        stride: samples between frames.
        floors: part of the loss -> the smallest value that a healthy run logs once it is under
            way; below it the representation has collapsed, and the training loop says so.
        needs_labels: whether pretraining needs ``Batch.labels``.
        needs_teacher: whether pretraining needs another upstream, given to :meth:`take_teacher`.
        takes_teacher: whether it can make use of one.
        needs_speakers: whether pretraining needs ``Batch.speakers_B``.
        least_items: fewest utterances that a batch of ``loss`` must hold (two where it tells them
            apart); pretraining makes no smaller one.
        least_frames: fewest frames of an utterance that ``loss`` has a use for; pretraining leaves
            out shorter ones.
        players: sides that take turns, so that a step gives gradients to one of them alone.
        variant: name of the config that the model started from, where the config itself grows with
            the data; None where it can be looked up.
        source: spec that it was loaded by, where that was a run, of the one model of it; None where
            it was not loaded by a spec.
    """

    name: ClassVar[str]
    sample_rate: ClassVar[int] = 16000
    needs_labels: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    takes_teacher: ClassVar[bool] = False
    needs_speakers: ClassVar[bool] = False
    players: ClassVar[int] = 1
    least_items: int = 1
    least_frames: int = 1
    variant: str | None = None
    source: str | None = None
    floors: Mapping[str, float] = MappingProxyType({})
    dim: int
    num_layers: int
    stride: int

    def __init__(self, config: Any) -> None:
        super().__init__()
        if not dataclasses.is_dataclass(config):
            raise TypeError(f"config must be a dataclass instance, got {type(config).__name__}")
        self.config: Any = config
        self.precision: Precision = "fp32"
        self.frozen = False

    # -- what a family writes ---------------------------------------------------------------

    @abstractmethod
    def num_frames(self, n_samples: int) -> int:
        """Return the exact number of frames that ``n_samples`` >= 1 samples yield."""

    @abstractmethod
    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the ``num_layers`` hidden states of a ragged batch, one layer at a time.

        Nothing is padded: each yielded tensor has shape (N, D), the utterances' frames laid end
        to end, with ``num_frames(len(wav))`` rows each. Layers come one by one so that a caller
        who pools them never holds all of them.

        Args:
            wavs: 1-D float32 waveforms, each with at least one sample.
        """

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """Return the pretraining objective of the family's paper on a batch."""

    def after_step(self, step: int, total_steps: int) -> None:
        """Update what the method keeps beside the gradient (EMA, temperature); default: nothing.

        Args:
            step: number of optimiser steps done, from 1.
            total_steps: planned number of optimiser steps.
        """

    @classmethod
    def adopt_config(cls, config: Any, teacher: Upstream) -> Any:
        """Return the config with what the teacher decides (widths, layers); default: as it is."""
        return config

    @classmethod
    def adopt_speakers(cls, config: Any, speakers: Sequence[str]) -> Any:
        """Return the config with the speakers of the run; default: as it is."""
        return config

    def take_teacher(self, teacher: Upstream) -> None:
        """Receive the frozen upstream that pretraining learns from, once, before the first step.

        Raises:
            ValueError: this family learns from no teacher, or not from this one.
        """
        raise ValueError(f"{self.name} learns from audio alone: it takes no teacher")

    def prepare_inference(self) -> None:
        """Build whatever makes frozen inference fast (packed weights); default: nothing."""

    # -- what everyone gets -----------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Device of the parameters (CPU for an upstream that has none)."""
        for tensor in (*self.parameters(), *self.buffers()):
            return tensor.device
        return torch.device("cpu")

    def freeze(self, precision: Precision = "fp32") -> Self:
        """Make the model a fixed function: eval mode, no gradient, fast inference path.

        Args:
            precision: ``fp32``, or ``bf16`` for bfloat16 matrix products (about 1 % relative
                difference at the last layer, 2-3 times the speed).

        Raises:
            ValueError: unknown precision.
        """
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be 'fp32' or 'bf16', got {precision!r}")
        self.eval()
        self.requires_grad_(False)
        self.precision = precision
        self.frozen = True
        self.loss = _refuse_loss  # type: ignore[method-assign]  # shadows the family's
        with torch.no_grad():
            self.prepare_inference()
        return self

    def train(self, mode: bool = True) -> Self:
        """Switch training mode; a frozen upstream stays in eval mode."""
        if mode and getattr(self, "frozen", False):
            return self
        return super().train(mode)

    def forward(self, wav_BS: Tensor, lengths_B: Tensor) -> Features:
        """Return every hidden state of a padded batch.

        Args:
            wav_BS: float waveforms, right-padded with anything.
            lengths_B: true number of samples of each row, 1 <= length <= S.

        Raises:
            ValueError: a length out of range or a waveform of the wrong rank.
        """
        if wav_BS.ndim != 2 or lengths_B.shape != wav_BS.shape[:1]:
            raise ValueError(
                "expected wav_BS of rank 2 and one length per row, got shapes "
                f"{tuple(wav_BS.shape)} and {tuple(lengths_B.shape)}"
            )
        sizes = [int(n) for n in lengths_B]
        for row, n in enumerate(sizes):
            if not 1 <= n <= wav_BS.shape[1]:
                raise ValueError(
                    f"length of row {row} must be between 1 and {wav_BS.shape[1]} samples, got {n}"
                )
        wavs = [wav_BS[row, :n] for row, n in enumerate(sizes)]
        frames = [self.num_frames(n) for n in sizes]
        top = max(frames)
        layers_LBTD = torch.zeros(
            self.num_layers, len(wavs), top, self.dim, device=self.device, dtype=torch.float32
        )
        for layer, states_ND in enumerate(self.hidden_states(wavs)):
            for row, part_TD in enumerate(states_ND.split(frames)):
                layers_LBTD[layer, row, : frames[row]] = part_TD
        return Features(
            layers_LBTD=layers_LBTD,
            lengths_B=torch.tensor(frames, dtype=torch.int64, device=self.device),
        )

    def config_dict(self) -> dict[str, Any]:
        """Return the config as plain JSON-ready values."""
        return dataclasses.asdict(self.config)

    def fingerprint(self) -> str:
        """Return a sha256 over family, config and every weight: the identity of the features."""
        digest = hashlib.sha256()
        head = {"upstream": self.name, "config": self.config_dict(), "precision": self.precision}
        digest.update(json.dumps(head, sort_keys=True).encode())
        for key, tensor in sorted(self.state_dict().items()):
            digest.update(f"{key}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(flat.numpy().tobytes())
        return digest.hexdigest()


def _refuse_loss(batch: Batch) -> Loss:
    raise RuntimeError("a frozen upstream has no loss: build or load it anew to train it")
