"""What enhancement (SE) and separation (SS) share: masks on the transform of the mixture.

A head gives a mask for each source at every frame and bin of the mixture's short-time Fourier
transform (:mod:`mynah.tasks.core.stft`). ``superb`` multiplies the mixture by it; the target of the
masked magnitude is ``|source| max(0, cos(difference of phases))`` (NPSM, Kolbaek et al. 2017,
arXiv:1703.06284), compared by squares. ``fixed`` masks ``log1p`` of the magnitude and compares that.
The waveform has the mixture's phase.

A number that a reference does not define (PESQ without speech in it) is ``undefined`` in the
predictions and left out of the mean; what to score depends on the corpus then and not on the model.
An estimate of silence is scored: it has the lowest value there is.

Shape suffixes: K heads, B batch, S sources or samples, T frames, F bins.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mynah.downstream.mask_rnn import MaskRNN
from mynah.tasks.core.contract import (
    Data,
    DataError,
    Decoded,
    Facts,
    Presented,
    Protocol,
    Rows,
    Split,
    Task,
)
from mynah.tasks.core.pit import Distance, pit_spectra
from mynah.tasks.core.sources import Waves, source
from mynah.tasks.core.splits import Parts, as_splits, order
from mynah.tasks.core.stft import OnTransform, Stft, without_burst
from mynah.tasks.corpora.audio import num_samples
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.mean import as_fields
from mynah.tasks.metrics.metric import Measure
from mynah.tasks.metrics.separation import Separation, separation

N_FFT = 512
REMEMBERED = 4096  # estimates whose scores are kept

FIXED = Protocol(
    batch_size=8, accumulate=1, clip=1.0, steps=20_000, eval_every=500, patience=10,
    sampler="bucket",
)  # fmt: skip
SUPERB = Protocol(  # but for how often dev is scored
    optimizer="adamw", eps=1e-7, batch_size=8, accumulate=1, clip=1.0, steps=150_000,
    eval_every=1_250, ties="first",
)  # fmt: skip

Wave = NDArray[Any]
Scores = Mapping[str, float | None]


class Masking(Task):
    """Sources of a mixture by masks, under one protocol; ``classes`` are the references' labels."""

    HAS_SMALL_HEAD = True
    DISTANCE: ClassVar[Distance]
    """How ``fixed`` compares magnitudes."""
    DEV_AT_MOST: ClassVar[int]
    """How many utterances of dev ``fixed`` scores."""
    PHASE: ClassVar[bool]
    """Whether the target of ``fixed`` is smaller where the phases differ (NPSM), as in ``superb``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._superb = self.protocol_name == "superb"
        self._audio: Waves | None = None
        self._scored: OrderedDict[tuple[str, str, tuple[str, ...]], Scores] = OrderedDict()

    @abstractmethod
    def measured(
        self, estimates: Wave, references: Sequence[Wave], mixture: Wave, wanted: Sequence[str]
    ) -> Scores:
        """Return the wanted metrics of one mixture by name; None where references define none.

        Args:
            estimates: (S, samples).
            references: S signals (samples).
            mixture: (samples).
            wanted: names of metrics.
        """

    def split_up(
        self, parts: Parts, *, sources: tuple[str, ...], notes: Sequence[str], named: str
    ) -> Data:
        """Set and return the data of some parts; ``fixed`` scores at most ``DEV_AT_MOST`` of dev.

        Args:
            parts: checked.
            sources: labels of the references.
            notes: how the parts came about.
            named: what an utterance is called in them.
        """
        said = list(notes)
        train, dev, test = as_splits(parts)
        if not self._superb and len(dev.utterances) > self.DEV_AT_MOST:
            said.append(f"{self.DEV_AT_MOST} of {len(dev.utterances)} dev {named} are scored")
            dev = some(dev, self.DEV_AT_MOST)
        self.data = Data(folds={"": (train, dev, test)}, classes=sources, notes=tuple(said))
        return self.data

    # -- the upstream -----------------------------------------------------------------------

    def bind(self, facts: Facts) -> None:
        """Take the upstream's stride as hop of the transform.

        Raises:
            DataError: a stride that the protocol's transform cannot hop by.
        """
        super().bind(facts)
        if self._superb and facts.stride >= N_FFT:
            raise DataError(
                f"{self.SPEC.name} under superb needs a stride below {N_FFT} samples, this upstream "
                f"has {facts.stride}: use the fixed protocol"
            )
        self._audio = Waves(facts.sample_rate)

    @property
    def stft(self) -> Stft:
        """The transform: 512 samples; ``fixed`` takes 1024 ... where two hops do not fit into them."""
        hop, size = self.facts.stride, N_FFT
        while not self._superb and size < 2 * hop:
            size *= 2
        return Stft(n_fft=size, hop=hop)

    def wave(self, utterance: Utterance) -> Tensor:
        """Return the audio of an utterance at the upstream's rate, (samples,).

        Raises:
            DataError: it cannot be read.
        """
        self.facts  # noqa: B018 - raises where nothing was bound
        assert self._audio is not None
        return self._audio(utterance)

    def head(self, dim: int) -> nn.Module:
        """Return bidirectional LSTM layers and a mask for each source, on frames of the transform.

        ``superb``: 3 layers of 2 x 896, dropout 0.5, ReLU. ``fixed``: 3 layers of 2 x 256, dropout
        0.1, sigmoid. Small: 1 layer of 2 x 128.
        """
        size: dict[str, Any] = {} if self._superb else {"hidden": 256, "dropout": 0.1}
        if self.small:
            size |= {"hidden": 128, "layers": 1}
        return OnTransform(
            MaskRNN(
                dim,
                self.stft.bins,
                sources=self.outputs,
                activation="relu" if self._superb else "sigmoid",
                **size,
            )
        )

    def head_inputs(self, batch: Sequence[Utterance]) -> tuple[Tensor, ...]:
        """Return the frames of each mixture's transform (B)."""
        rate = self.facts.sample_rate
        return (torch.tensor([self.stft.frames(num_samples(u, rate)) for u in batch]),)

    # -- training ---------------------------------------------------------------------------

    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return distances (K, B) of masked mixtures, masks (K, B, T, S, F), from their sources.

        Each is a sum over bins, a mean over frames and sources.
        """
        (frames_B,) = self.head_inputs(batch)
        mixture_BTF, sources_BTSF = self._spectra(batch)
        level_BTF = mixture_BTF.abs()
        target_BTSF = sources_BTSF.abs()
        if self._superb or self.PHASE:
            apart_BTSF = mixture_BTF.angle()[:, :, None] - sources_BTSF.angle()
            target_BTSF = target_BTSF * apart_BTSF.cos().clamp(min=0.0)
        if not self._superb:
            level_BTF, target_BTSF = level_BTF.log1p(), target_BTSF.log1p()
        distance = "squared" if self._superb else self.DISTANCE
        masked_KBTSF = outputs * level_BTF.to(outputs.device)[None, :, :, None]
        sums_KB, _ = pit_spectra(masked_KBTSF, target_BTSF, frames_B, distance=distance)
        return sums_KB / frames_B.to(sums_KB)

    def _spectra(self, batch: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        """Return transforms of mixtures (B, T, F) and of their sources (B, T, S, F)."""
        labels = self.loaded.classes
        rows = [[self.wave(u), *(self.wave(source(u, label)) for label in labels)] for u in batch]
        longest = max(len(row[0]) for row in rows)
        padded = torch.zeros(len(rows), 1 + len(labels), longest)
        for place, row in enumerate(rows):
            padded[place, :, : len(row[0])] = torch.stack(row)
        spectra = self.stft(padded.flatten(0, 1)).unflatten(0, padded.shape[:2])
        return spectra[:, 0], spectra[:, 1:].transpose(1, 2)

    # -- decoding ---------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the labels of the references."""
        return {"sources": list(self.loaded.classes)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the labels of the references."""
        self.data = Data(folds={}, classes=tuple(state["sources"]))

    def decode(
        self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> list[NDArray[Any]]:
        """Return the sources (S, samples), float32, by masks (B, T, S, F) on the audio of mixtures."""
        out = []
        for masks_TSF, u in zip(outputs.detach().cpu(), batch, strict=True):
            wav_S = self.wave(u)
            mixture_TF = self.stft(wav_S[None])[0]
            masks_STF = masks_TSF[: len(mixture_TF)].transpose(0, 1)
            if self._superb:
                spectra_STF = masks_STF * mixture_TF
            else:
                level_STF = (masks_STF * mixture_TF.abs().log1p()).expm1()
                spectra_STF = level_STF * mixture_TF.sgn()  # of unit length, the phase
            wavs = self.stft.inverse(spectra_STF, len(wav_S), steady=not self._superb).numpy()
            if self._superb:
                for row in range(len(wavs)):
                    wavs[row] = without_burst(wavs[row])
            out.append(wavs)
        return out

    def infer(
        self, probe: nn.Module, features: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> Sequence[Decoded]:
        """Return what a trained head says of each item: waveforms, as :meth:`decode`."""
        mixed = probe.get_submodule("featurizer")(features)
        outputs = probe.get_submodule("head")(mixed, lengths_B, *self.head_inputs(batch))
        return self.decode(outputs, lengths_B, batch)

    def present(self, decoded: Decoded, utterance: Utterance) -> Presented:
        """Return the sources as audio, named by the references' labels.

        Raises:
            TypeError: text instead of waveforms.
        """
        wavs = dict(zip(self.loaded.classes, _waves(decoded), strict=True))
        seconds = len(_waves(decoded)[0]) / self.facts.sample_rate
        return Presented(
            text=f"{', '.join(wavs)}: {seconds:.2f} s of audio",
            json={"sources": list(wavs), "seconds": seconds},
            wavs=wavs,
        )

    # -- scoring ----------------------------------------------------------------------------

    def reference(self, utterance: Utterance) -> str:
        """Return the references' labels as they are: paths."""
        return " ".join(utterance.label(label) or "" for label in self.loaded.classes)

    def rows(self, split: Split, decoded: Sequence[Decoded]) -> Rows:
        """Return the scores of each utterance as text; on dev those that choose only."""
        measures: tuple[Measure, ...] = self.metrics()
        if split.name == "dev":
            measures = (self.dev_metric(),)
        wanted = tuple(m.name for m in measures)
        pairs = zip(split.utterances, decoded, strict=True)
        return super().rows(
            split, [as_fields(self._scores(u, _waves(wavs), wanted)) for u, wavs in pairs]
        )

    def _scores(self, utterance: Utterance, estimates: Wave, wanted: tuple[str, ...]) -> Scores:
        """Return the scores of one utterance; those of an estimate that was heard before are kept."""
        key = (utterance.id, hashlib.sha256(estimates.tobytes()).hexdigest(), wanted)
        if key not in self._scored:
            labels = self.loaded.classes
            references = [self.wave(source(utterance, label)).numpy() for label in labels]
            mixture = self.wave(utterance).numpy()
            self._scored[key] = self.measured(estimates, references, mixture, wanted)
            if len(self._scored) > REMEMBERED:
                self._scored.popitem(last=False)
        return self._scored[key]


def some(split: Split, count: int) -> Split:
    """Return ``count`` utterances of a split, always the same, in the order of the split."""
    chosen = set(order((u.id for u in split.utterances), f"some-{split.name}")[:count])
    return Split(name=split.name, utterances=tuple(u for u in split.utterances if u.id in chosen))


def separated(estimates: Wave, references: Sequence[Wave], mixture: Wave) -> Separation | None:
    """Return SI-SDR and its improvement, None where a reference or the mixture is silence.

    Args:
        estimates: (S, samples).
        references: S signals (samples).
        mixture: (samples).
    """
    if any(np.ptp(x) == 0 for x in (*references, mixture)):
        return None
    return separation([*estimates], references, mixture, silent_allowed=True)


def _waves(decoded: Decoded) -> Wave:
    if isinstance(decoded, str):
        raise TypeError(f"expected waveforms (S, samples), got text {decoded[:40]!r}")
    return decoded
