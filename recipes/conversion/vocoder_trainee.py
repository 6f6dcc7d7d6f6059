"""A vocoder in training as the loop sees it: a generator and its discriminators, taking turns.

One optimiser serves both. On a turn of the discriminators only theirs is the loss, on a turn of the
generator only its own, and the other side's parameters take no part: their gradients stay None, and
Adam leaves such parameters, their moments and their count of steps as they are. So turns with one
optimiser are what two optimisers would do. The papers let both sides step on each batch; here each
batch is one turn's, so that a paper's N updates are 2 N steps.

Shape suffixes: B batch, S samples, T frames, M mel bins.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mynah import registry
from mynah.downstream.core.melspec import LogMelSpectrogram, MelSpec
from mynah.downstream.vocoders import hifigan, vocos
from mynah.downstream.vocoders.core import discriminators
from mynah.downstream.vocoders.core.discriminators import Discriminators, Verdict
from mynah.downstream.vocoders.core.neural import Generator
from mynah.upstream.core.contract import Batch, Loss, Upstream

ALONE, GENERATOR, DISCRIMINATORS = 0, 1, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every vocoder's config has beside the generator's own settings.

    Attributes:
        vocoder: name of a vocoder of ``mynah.downstream.vocoders``.
        mel: the spectrograms that it takes.
        discriminators: ``paper`` (HiFi-GAN's) or ``tiny``, for CPUs.
        alone: steps, at first, of the generator with the spectral distance alone; after them the two
            sides take turns.
        spectral: weight of that distance.
        features: weight of the distance of the discriminators' features.
        windows: samples of further windows at which the spectral distance is measured as well, each
            with a hop of a quarter; it is the mean over all.
    """

    vocoder: str
    mel: MelSpec = MelSpec()  # noqa: RUF009  frozen
    discriminators: Literal["paper", "tiny"] = "paper"
    alone: int = 0
    spectral: float = 45.0
    features: float = 2.0
    windows: tuple[int, ...] = ()

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: negative numbers, or windows that are odd or of less than 16 samples.
        """
        if self.alone < 0 or self.spectral < 0 or self.features < 0:
            raise ValueError("alone, spectral and features must be 0 or more")
        if any(window < 16 or window % 2 for window in self.windows):
            raise ValueError(f"windows must have 16 samples or more, even, got {self.windows}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HiFiGANConfig(hifigan.Config, Surroundings):
    """A HiFi-GAN in training."""

    vocoder: str = "hifigan"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check()


@dataclasses.dataclass(frozen=True, kw_only=True)
class VocosConfig(vocos.Config, Surroundings):
    """A Vocos in training."""

    vocoder: str = "vocos"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check()


_KINDS: Mapping[str, type[Any]] = {"hifigan": HiFiGANConfig, "vocos": VocosConfig}
_MODULES: Mapping[str, Any] = {"hifigan": hifigan, "vocos": vocos}
_TINY = {"discriminators": "tiny", "alone": 1000, "windows": (256, 1600)}


def config_type(values: Mapping[str, Any]) -> type[Any]:
    """Return the config class of plain values.

    Raises:
        ValueError: no vocoder that is trained.
    """
    name = str(values.get("vocoder"))
    if name not in _KINDS:
        raise ValueError(registry.unknown("trained vocoder", name, _KINDS))
    return _KINDS[name]


def _configs() -> dict[str, Any]:
    """Return every variant's config."""
    found = {}
    for name, module in _MODULES.items():
        for variant, config in module.CONFIGS.items():
            own = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
            more: Any = _TINY if variant.endswith("-tiny") else {}
            found[variant] = _KINDS[name](**own, **more)
    return found


class FeaturesError(TypeError):
    """A vocoder was asked for features."""

    exit_code = 2


class VocoderTraining(Upstream):
    """A generator, its discriminators, and the objectives of both."""

    name: ClassVar[str] = "vocoder"
    players: ClassVar[int] = 2
    least_frames = 2  # one may be less than a hop
    config: Any
    turn: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        spec = config.mel
        self.sample_rate = spec.sample_rate  # type: ignore[misc]  # of this model
        self.dim = spec.num_mels
        self.num_layers = 0
        self.stride = spec.hop
        self.generator: Generator = _MODULES[config.vocoder].GENERATOR(config, spec)
        self.discriminators = Discriminators(discriminators.SIZES[config.discriminators])
        self.mel = LogMelSpectrogram(spec)
        further = [LogMelSpectrogram(_with_window(spec, window)) for window in config.windows]
        self.further = nn.ModuleList(further)
        first = ALONE if config.alone else DISCRIMINATORS
        self.register_buffer("turn", torch.tensor(first))

    def num_frames(self, n_samples: int) -> int:
        """Return the number of spectrogram frames."""
        frames: int = self.config.mel.num_frames(n_samples)
        return frames

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Refuse.

        Raises:
            FeaturesError: always.
        """
        raise FeaturesError(
            "a vocoder makes audio and has no features to probe: use it with --vocoder, or hear it "
            "with mynah judge vocoders"
        )

    def loss(self, batch: Batch) -> Loss:
        """Return the objective of the side whose turn it is.

        Raises:
            ValueError: utterances shorter than a frame.
        """
        hop = self.config.mel.hop
        frames = batch.wav_BS.shape[1] // hop
        if not frames:
            raise ValueError(f"a batch must last a frame of {hop} samples at least")
        real_BS = batch.wav_BS[:, : frames * hop]
        with torch.no_grad():
            mel_BMT = self.mel(real_BS)[:, :frames].transpose(1, 2)
        weight = float(len(real_BS) * frames)
        turn = int(self.turn)
        if turn == DISCRIMINATORS:
            with torch.no_grad():
                made_BS = self.generator(mel_BMT)
            real, made = discriminators.telling_apart(
                self.discriminators(real_BS), self.discriminators(made_BS)
            )
            parts = {"real": real.detach(), "made": made.detach()}
            return Loss(total=real + made, parts=parts, weight=weight)
        made_BS = self.generator(mel_BMT)
        spectral = self._spectral(real_BS, made_BS)
        total, parts = self.config.spectral * spectral, {"spectral": spectral.detach()}
        if turn == GENERATOR:
            with torch.no_grad():
                known = self.discriminators(real_BS)
            told = self._told(made_BS)
            passing = discriminators.passing(told)
            features = discriminators.feature_distance(known, told)
            total = total + passing + self.config.features * features
            parts |= {"passing": passing.detach(), "features": features.detach()}
        return Loss(total=total, parts=parts, weight=weight)

    def after_step(self, step: int, total_steps: int) -> None:
        """Give the turn to the other side, once the generator's time alone is over."""
        if int(self.turn) == DISCRIMINATORS:
            self.turn.fill_(GENERATOR)
        elif step >= self.config.alone:
            self.turn.fill_(DISCRIMINATORS)

    def _spectral(self, real_BS: Tensor, made_BS: Tensor) -> Tensor:
        """Return the mean absolute difference of log-mel spectrograms, over all windows."""
        found = []
        for spectrogram in (self.mel, *self.further):
            with torch.no_grad():
                real_BTM = spectrogram(real_BS)
            found.append((spectrogram(made_BS) - real_BTM).abs().mean())
        return torch.stack(found).mean()

    def _told(self, wav_BS: Tensor) -> list[Verdict]:
        """Return what the discriminators say, without a gradient for their own parameters."""
        held = {name: p.detach() for name, p in self.discriminators.named_parameters()}
        said: list[Verdict] = functional_call(self.discriminators, held, (wav_BS,))
        return said


def _with_window(spec: MelSpec, window: int) -> MelSpec:
    """Return the spectrogram of another window, with as many filters as its bins can tell apart."""
    return MelSpec(
        sample_rate=spec.sample_rate,
        n_fft=window,
        window=window,
        hop=window // 4,
        num_mels=min(spec.num_mels, window // 8),
        high=spec.sample_rate / 2,
    )


MODEL = VocoderTraining
Config = Surroundings
CONFIGS = _configs()
