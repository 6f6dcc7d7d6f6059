"""The auto-encoder that all trained converters are: encoder, bottleneck, voice, decoder.

It is trained to say again what it heard: the code comes from the utterance, the voice from the same
utterance's spectrogram. Only what the bottleneck and the encoder take away decides whether the voice of
somebody else can be put in its place.

Shape suffixes: B batch, T frames, D input width, M mel bins, H hidden, C code, V voice.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from mynah.downstream.conversion.core.blocks import (
    ContentEncoder,
    SpeakerEncoder,
    VoiceDecoder,
    mask_of,
)
from mynah.downstream.conversion.core.bottleneck import Bottleneck, Passed
from mynah.downstream.conversion.core.contract import (
    ConversionBatch,
    Converter,
    Heard,
    Objective,
    Sizes,
)


@dataclass(frozen=True, kw_only=True)
class AutoEncoderConfig:
    """What all auto-encoders share.

    Attributes:
        hidden: width of the convolutions.
        code: width of the content code.
        voice: width of the voice.
        encoder_blocks: residual blocks of two convolutions.
        decoder_blocks: likewise.
        speaker: ``statistics``: a linear map of mean and deviation of each mel bin, which needs few
            training speakers; ``encoder``: convolutions before the mean.
    """

    hidden: int = 256
    code: int = 64
    voice: int = 128
    encoder_blocks: int = 3
    decoder_blocks: int = 3
    speaker: Literal["statistics", "encoder"] = "encoder"

    def __post_init__(self) -> None:
        for name in ("hidden", "code", "voice", "encoder_blocks", "decoder_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")


class AutoEncoder(Converter):
    """Base class of the trained converters; a method chooses encoder, bottleneck and decoder."""

    trained: ClassVar[bool] = True
    instance_norm: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False
    config: AutoEncoderConfig
    x_mean_D: Tensor
    x_scale_D: Tensor
    mel_mean_M: Tensor
    mel_scale_M: Tensor
    share: Tensor

    def __init__(self, config: AutoEncoderConfig, sizes: Sizes) -> None:
        super().__init__(config, sizes)
        mels = sizes.spec.num_mels
        for name, width in (("x", sizes.dim), ("mel", mels)):
            suffix = "D" if name == "x" else "M"
            self.register_buffer(f"{name}_mean_{suffix}", torch.zeros(width))
            self.register_buffer(f"{name}_scale_{suffix}", torch.ones(width))
        self.register_buffer("share", torch.zeros(()))
        self.encoder = ContentEncoder(
            sizes.dim, config.hidden, config.encoder_blocks, normalise=self._norms()
        )
        self.bottleneck = self.make_bottleneck()
        hidden = config.hidden if config.speaker == "encoder" else 0
        self.voices = SpeakerEncoder(mels, hidden, config.voice)
        self.decoder = VoiceDecoder(
            self.bottleneck.width,
            config.hidden,
            config.voice,
            mels,
            config.decoder_blocks,
            adaptive=self.adaptive,
        )

    def _norms(self) -> bool:
        return self.instance_norm

    @abstractmethod
    def make_bottleneck(self) -> Bottleneck:
        """Return the method's bottleneck."""

    @property
    def floors(self) -> Mapping[str, float]:  # type: ignore[override]  # a fact of the bottleneck
        """Figures below which the code has collapsed."""
        return self.bottleneck.floors

    @property
    def code_dim(self) -> int:
        """Width C of the content code."""
        return self.bottleneck.width

    @torch.no_grad()
    def normalise_by(self, heard: Sequence[Heard]) -> None:
        """Measure mean and deviation of inputs and spectrograms, once, before training.

        Raises:
            ValueError: nothing to measure.
        """
        if not heard:
            raise ValueError("there is nothing to measure the spectrograms' mean by")
        for name, rows in (
            ("x", torch.cat([h.x_TD for h in heard])),
            ("mel", torch.cat([h.mel_TM for h in heard])),
        ):
            suffix = "D" if name == "x" else "M"
            getattr(self, f"{name}_mean_{suffix}").copy_(rows.mean(0))
            scale = rows.std(0, unbiased=False).clamp(min=1e-3)
            getattr(self, f"{name}_scale_{suffix}").copy_(scale)

    # -- at work ------------------------------------------------------------------------------

    def encode_content(self, source: Heard) -> Tensor:
        """Return the content code (T, C)."""
        lengths_B = torch.tensor([len(source.x_TD)], device=source.x_TD.device)
        passed, _ = self.encoded(source.x_TD[None], lengths_B)
        return passed.code_BCT[0].T

    def encode_speaker(self, references: Sequence[Heard]) -> Tensor:
        """Return the voice (V,): the mean over recordings, weighed by their lengths.

        Raises:
            ValueError: no recording.
        """
        if not references:
            raise ValueError("a speaker is known by recordings: give at least one")
        voices = [self.voice(h.mel_TM[None], mask_of_one(h.mel_TM))[0] for h in references]
        weights = torch.tensor([float(len(h.mel_TM)) for h in references]).to(voices[0])
        return (torch.stack(voices) * (weights / weights.sum())[:, None]).sum(0)

    def speaker_vector(self, voice: Tensor) -> Tensor:
        """Return the voice itself."""
        return voice

    def decode(self, code_TC: Tensor, voice: Tensor) -> Tensor:
        """Return the spectrogram (T, M)."""
        mask_B1T = torch.ones(1, 1, len(code_TC)).to(code_TC)
        mel_BMT = self.decoder(code_TC.T[None], voice[None], mask_B1T)
        mel_TM: Tensor = mel_BMT[0].T * self.mel_scale_M + self.mel_mean_M
        return mel_TM.clamp(min=self.sizes.spec.silence)

    # -- parts --------------------------------------------------------------------------------

    def encoded(self, x_BTD: Tensor, lengths_B: Tensor) -> tuple[Passed, Tensor]:
        """Return the code of a padded batch, and its mask (B, 1, T)."""
        mask_B1T = mask_of(lengths_B, x_BTD.shape[1])
        x_BDT = ((x_BTD - self.x_mean_D) / self.x_scale_D).transpose(1, 2)
        return self.bottleneck(self.encoder(x_BDT, mask_B1T), mask_B1T), mask_B1T

    def voice(self, mel_BTM: Tensor, mask_B1T: Tensor) -> Tensor:
        """Return the voices (B, V) of spectrograms."""
        mel_BMT = ((mel_BTM - self.mel_mean_M) / self.mel_scale_M).transpose(1, 2)
        found_BV: Tensor = self.voices(mel_BMT, mask_B1T)
        return found_BV

    def reconstruction(self, passed: Passed, batch: ConversionBatch, mask_B1T: Tensor) -> Tensor:
        """Return the mean absolute error of the normalised spectrogram over valid frames."""
        voice_BV = self.voice(batch.mel_BTM, mask_B1T)
        wanted_BTM = (batch.mel_BTM - self.mel_mean_M) / self.mel_scale_M
        found_BMT = self.decoder(passed.code_BCT, voice_BV, mask_B1T)
        apart_BMT = (found_BMT - wanted_BTM.transpose(1, 2)).abs() * mask_B1T
        l1: Tensor = apart_BMT.sum() / (mask_B1T.sum() * apart_BMT.shape[1])
        return l1

    # -- training -----------------------------------------------------------------------------

    def loss(self, batch: ConversionBatch) -> Objective:
        """Return the reconstruction error and the bottleneck's terms."""
        passed, mask_B1T = self.encoded(batch.x_BTD, batch.lengths_B)
        l1 = self.reconstruction(passed, batch, mask_B1T)
        return Objective(
            total=l1 + sum(passed.terms.values()),
            parts={"l1": l1.detach(), **{k: v.detach() for k, v in passed.terms.items()}}
            | dict(passed.parts),
            weight=float(batch.lengths_B.sum()),
        )

    def after_step(self, step: int, total_steps: int) -> None:
        """Tell the bottleneck how far training is."""
        self.share.fill_(step / total_steps)
        self.bottleneck.after_step(step / total_steps)


def mask_of_one(mel_TM: Tensor) -> Tensor:
    """Return the mask (1, 1, T) of one utterance."""
    return torch.ones(1, 1, len(mel_TM)).to(mel_TM)
