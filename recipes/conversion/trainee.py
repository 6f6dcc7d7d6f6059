"""A trained voice converter as the training loop and the tasks see it: an upstream.

Its objective is the converter's; its one hidden state is the content code, at the frames of the
spectrogram.

Shape suffixes: B batch, S samples, T frames, D width, N frames of a ragged batch.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from mynah import registry
from mynah.downstream import conversion
from mynah.downstream.conversion.core.contract import ConversionBatch, Converter, Heard, Sizes
from mynah.downstream.core.melspec import MelSpec
from mynah.recipes.conversion.hearing import Hearing, Input
from mynah.upstream.core import modelfolder, spec
from mynah.upstream.core.contract import Batch, Loss, Upstream

log = logging.getLogger(__name__)

MEASURED = 64
"""Utterances by which the mean of the spectrograms is measured, at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every converter's config has beside the method's own settings.

    Attributes:
        method: name of a method of ``mynah.downstream.conversion``.
        upstream: spec of the frozen upstream that content is read from, empty for the spectrogram.
        fingerprint: of that upstream.
        dim: its width.
        layer: hidden state that is read, from the end where negative; null for the mean of all,
            each normed.
        speakers: of the training data.
        mel: the spectrogram between converter and vocoder.
        noise_snr: least and most dB of speech over noise that is added to the input alone, so that
            the converter learns to leave it out; null for none.
    """

    method: str
    upstream: str = ""
    fingerprint: str = ""
    dim: int = 0
    layer: int | None = -1
    speakers: tuple[str, ...] = ()
    mel: MelSpec = MelSpec()  # noqa: RUF009  frozen
    noise_snr: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.noise_snr is not None and not self.noise_snr[0] <= self.noise_snr[1]:
            raise ValueError(f"noise_snr must be least and most dB, got {self.noise_snr}")
        self.method_config()

    def method_config(self) -> Any:
        """Return the method's own config.

        Raises:
            ValueError: settings that it refuses.
        """
        kind = conversion.get(self.method).Config
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(kind)}
        return kind(**own)


@cache
def _type_of(method: str) -> type[Surroundings]:
    """Return the config class of a method: its own fields and the surroundings'."""
    kind = conversion.get(method).Config
    fields = [(f.name, f.type, dataclasses.field(default=f.default)) for f in _typed_fields(kind)]
    made: type[Surroundings] = dataclasses.make_dataclass(
        f"{method.title().replace('_', '')}Config",
        fields,
        bases=(Surroundings,),
        frozen=True,
        kw_only=True,
    )
    made.__module__ = __name__
    return made


def _typed_fields(kind: type[Any]) -> list[Any]:
    """Return a dataclass's fields with their types, not the types' names."""
    import typing

    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    for field in fields:
        field.type = hints[field.name]
    return list(fields)


def config_type(values: Mapping[str, Any]) -> type[Surroundings]:
    """Return the config class of plain values.

    Raises:
        ValueError: no method, or an unknown one.
    """
    method = values.get("method")
    if method not in conversion.available():
        raise ValueError(registry.unknown("method", str(method), conversion.available()))
    return _type_of(str(method))


def _configs() -> dict[str, Surroundings]:
    """Return every trained variant's config."""
    found = {}
    for method in conversion.available():
        module = conversion.get(method)
        if not module.CONVERTER.trained:
            continue
        for variant, config in module.CONFIGS.items():
            own = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
            mel = A2O_MEL if method == "taco2_ar" else MelSpec()
            found[variant] = _type_of(method)(method=method, mel=mel, **own)
    return found


A2O_MEL = MelSpec(
    sample_rate=24000,
    n_fft=1024,
    window=1024,
    hop=256,
    num_mels=80,
    low=80.0,
    high=7600.0,
    log="log10",
    floor=1e-10,
)
"""The spectrogram of S3PRL-VC's a2o recipe."""


class Conversion(Upstream):
    """A converter, how it hears, and its objective."""

    name: ClassVar[str] = "vc"
    takes_teacher: ClassVar[bool] = True
    needs_speakers: ClassVar[bool] = True
    config: Surroundings

    def __init__(self, config: Surroundings) -> None:
        super().__init__(config)
        module = conversion.get(config.method)
        dim = config.dim if config.upstream else config.mel.num_mels
        sizes = Sizes(dim=dim, spec=config.mel, speakers=len(config.speakers))
        self.converter: Converter = module.CONVERTER(config.method_config(), sizes)
        self.floors = self.converter.floors
        self.sample_rate = config.mel.sample_rate  # type: ignore[misc]  # of this model
        self.dim = self.converter.code_dim
        self.num_layers = 1
        self.stride = config.mel.hop
        own = config.method_config()
        self.variant = next((n for n, c in module.CONFIGS.items() if c == own), config.method)
        self._hearing: Hearing | None = None
        self._given: tuple[Upstream, ...] = ()  # in a tuple: its weights are not this model's

    @classmethod
    def adopt_config(cls, config: Any, teacher: Upstream) -> Any:
        """Return the config with the upstream that content is read from."""
        return dataclasses.replace(config, fingerprint=teacher.fingerprint(), dim=teacher.dim)

    @classmethod
    def adopt_speakers(cls, config: Any, speakers: Sequence[str]) -> Any:
        """Return the config with the speakers of the training data.

        Raises:
            ValueError: several, of a converter that speaks in one voice.
        """
        if conversion.get(config.method).CONVERTER.any_to_one and len(speakers) > 1:
            raise ValueError(
                f"{config.method} learns to speak in one voice, and the corpus has "
                f"{len(speakers)} ({', '.join(speakers[:3])} ...): say whose with --speaker NAME"
            )
        return dataclasses.replace(config, speakers=tuple(speakers))

    def take_teacher(self, teacher: Upstream) -> None:
        """Receive the upstream that content is read from.

        Raises:
            ValueError: another one than the converter was trained on.
        """
        if not self.config.upstream:
            raise ValueError("this converter reads spectrograms: it takes no upstream")
        found = teacher.fingerprint()
        if found != self.config.fingerprint:
            raise ValueError(
                f"this converter was trained on {self.config.upstream} with the fingerprint "
                f"{self.config.fingerprint[:12]}, the one given has {found[:12]}: give the same "
                "weights, at the same precision"
            )
        self._given = (teacher,)
        self._hearing = None

    @property
    def hearing(self) -> Hearing:
        """How it hears; loads the upstream where none was given.

        Raises:
            FileNotFoundError, LookupError: the upstream is not there, as seen from this folder.
            ValueError: the upstream is no longer what it was.
        """
        if self._hearing is None:
            if self.config.upstream and not self._given:
                try:
                    teacher = spec.load(self.config.upstream, device=self.device)
                except (FileNotFoundError, LookupError) as error:
                    raise type(error)(
                        f"this converter reads the upstream {self.config.upstream}, as it was named in "
                        f"training: {error}; say where it is now (--upstream)"
                    ) from error
                self.take_teacher(teacher)
            given = self._given[0] if self._given else None
            source = Input(upstream=given, layer=self.config.layer)
            self._hearing = Hearing(self.config.mel, source)
        return self._hearing.to(self.device)

    def measure(self, read: Sequence[Callable[[], Tensor]]) -> None:
        """Measure what the converter normalises by, once, before training.

        Args:
            read: return the waveform (S,) of an utterance each; at most ``MEASURED`` are called,
                evenly spread.
        """
        step = max(1, -(-len(read) // MEASURED))
        heard: list[Heard] = []
        for one in read[::step]:
            heard += self.hearing([one().to(self.device)])
        normalise = getattr(self.converter, "normalise_by", None)
        if normalise is not None:
            normalise(heard)

    def num_frames(self, n_samples: int) -> int:
        """Return the number of spectrogram frames."""
        return self.config.mel.num_frames(n_samples)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the content code (N, D)."""
        codes = [self.converter.encode_content(heard) for heard in self.hearing(wavs)]
        yield torch.cat(codes).float()

    def loss(self, batch: Batch) -> Loss:
        """Return the converter's objective on a batch.

        Raises:
            ValueError: nobody says who speaks.
        """
        if batch.speakers_B is None:
            raise ValueError("a converter's batch must say who speaks (Batch.speakers_B)")
        wavs = batch.wavs()
        noisy = self._noisy(wavs, batch.generator) if self.config.noise_snr else None
        heard = self.hearing(wavs, inputs=noisy)
        pad = torch.nn.utils.rnn.pad_sequence
        found = self.converter.loss(
            ConversionBatch(
                x_BTD=pad([h.x_TD for h in heard], batch_first=True),
                mel_BTM=pad([h.mel_TM for h in heard], batch_first=True),
                lengths_B=torch.tensor([len(h.mel_TM) for h in heard], device=self.device),
                speakers_B=batch.speakers_B,
                generator=batch.generator,
            )
        )
        return Loss(total=found.total, parts=found.parts, weight=found.weight)

    def after_step(self, step: int, total_steps: int) -> None:
        """Tell the converter."""
        self.converter.after_step(step, total_steps)

    def _noisy(self, wavs: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Return waveforms with noise: white, or the other utterances of the batch talking at once."""
        assert self.config.noise_snr is not None
        low, high = self.config.noise_snr
        out = []
        for i, wav_S in enumerate(wavs):
            snr = low + (high - low) * float(torch.rand((), generator=generator))
            if len(wavs) > 3 and float(torch.rand((), generator=generator)) < 0.5:
                others = [wavs[(i + k) % len(wavs)] for k in (1, 2, 3)]
                noise_S = torch.zeros_like(wav_S)
                for other in others:
                    size = min(len(other), len(wav_S))
                    noise_S[:size] += other[:size]
            else:
                noise_S = torch.randn(len(wav_S), generator=generator).to(wav_S)
            power = wav_S.square().mean() / noise_S.square().mean().clamp(min=1e-12)
            out.append(wav_S + noise_S * (power * 10 ** (-snr / 10)).sqrt())
        return out


def only_voice(method: str, speakers: Sequence[str]) -> str | None:
    """Return whom a trained converter always speaks as, None where it speaks as its target.

    Args:
        method: name of a method of ``mynah.downstream.conversion``.
        speakers: of its training data.
    """
    any_to_one = conversion.get(method).CONVERTER.any_to_one
    return speakers[0] if any_to_one and len(speakers) == 1 else None


def load_converter(folder: str | Path, *, upstream: Upstream | None = None) -> Conversion:
    """Return the trained converter of a run or model folder, ready to convert.

    Args:
        folder: of ``mynah pretrain vc/...``, or its ``final``.
        upstream: frozen, in place of the one that the folder names by its spec.

    Raises:
        FileNotFoundError, ValueError: not a whole converter, or its upstream is not there.
    """
    model = modelfolder.load(spec.newest(folder))
    if not isinstance(model, Conversion):
        raise ValueError(f"{folder} holds a model of {model.name}, not a voice converter")
    if upstream is not None:
        model.take_teacher(upstream)
    model.freeze()
    return model


MODEL = Conversion
Config = Surroundings
CONFIGS = _configs()
