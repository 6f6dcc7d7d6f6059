"""What BYOL-A and DeLoRes have in common: AudioNTT, learning from two views of a short clip.

:class:`ClipConfig` holds the settings, :class:`ClipUpstream` the frozen features and the making of
views. A family adds its heads and its objective.

A clip is a random stretch of 0.95 s of an utterance (a shorter one lies in the middle of silence).
Its log-mel spectrogram, normalised by running statistics, is seen in two views of the same clip, as
both papers do it: each mixed with another, earlier clip, then a random rectangle of it stretched to
the full size. See :mod:`mynah.upstream.core.views`.

Hidden states, which the papers do not count: each block's frames, the channels of all mel bins
side by side, then the frame embeddings. The published blocks pool frames again and again: coarser
states are repeated up to the stride of the first block (20 ms), their last frame more often where
an odd frame was left over. States that are narrower than ``dim``, the widest of them, are filled
up with zeros. The tiny variants double the channels where they halve the mel axis and pool frames
once: all states have 20 ms and one width. They normalise each mel bin within the utterance, which
half an hour of speech needs more than the sounds of the world do.

Shape suffixes: B batch, S samples, M mel bins, T spectrogram or state frames, W width of a block's
frames, D width of a state, N frames of a ragged batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core import views
from mynah.upstream.core.audiontt import AudioNTT, PackedAudioNTT
from mynah.upstream.core.contract import Batch
from mynah.upstream.core.logmel import SAMPLE_RATE, STRIDE, LogMel
from mynah.upstream.core.packing import Packing


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Settings of front-end, encoder and views; the defaults are BYOL-A's.

    Attributes:
        num_mels: mel filters.
        window: samples of a window of the Fourier transform.
        low: lower edge of the filters, in Hz.
        high: upper edge of the filters, in Hz.
        mel_scale: ``htk`` (torchaudio) or ``slaney`` (librosa).
        normalize: ``running``: by the mean and deviation of all that training has heard, as
            published; ``utterance``: each mel bin by its own within the utterance or clip, which
            takes the channel and some of the voice away.
        mean: of the log energies, until training has heard some (``running``).
        std: their standard deviation until then.
        norm_clips: clips after which the running statistics stay as they are.
        channels: channels of each block.
        time_pools: frames that each block pools into one.
        embed_dim: width of the embedding.
        dropout: between the two linear layers of the encoder.
        clip_seconds: length of a clip.
        least_clips: a batch of fewer utterances takes several clips from each, up to this number:
            batch norm and decorrelation need many.
        mixup: largest share of the other clip.
        memory: clips that may be mixed in.
        canvas: length of the canvas that rectangles are cut from, in clips.
        freq_scale: smallest and largest height of a rectangle, as a share of the mel bins.
        time_scale: smallest and largest length of a rectangle, in clips.
        objective: whether there is what training needs beside the encoder: heads, a memory of
            clips. Weights that were published for features only have none of it.
    """

    num_mels: int = 64  # BYOL-A: n_mels
    window: int = 1024  # BYOL-A: n_fft, win_length
    low: float = 60.0  # BYOL-A: f_min
    high: float = 7800.0  # BYOL-A: f_max
    mel_scale: Literal["htk", "slaney"] = "htk"  # torchaudio's default
    normalize: Literal["running", "utterance"] = "running"  # BYOL-A: RunningNorm
    mean: float = -5.4919195  # s3prl: stats
    std: float = 5.0389895  # s3prl: stats
    norm_clips: int = 1_000_000  # BYOL-A: ten epochs (RunningNorm)
    channels: tuple[int, ...] = (64, 64, 64)
    time_pools: tuple[int, ...] = (2, 2, 2)
    embed_dim: int = 2048  # BYOL-A: feature_d
    dropout: float = 0.3
    clip_seconds: float = 0.95  # BYOL-A: unit_sec
    least_clips: int = 32
    mixup: float = 0.4  # BYOL-A: mixup_ratio
    memory: int = 2048  # BYOL-A: n_memory
    canvas: float = 1.5  # BYOL-A: virtual_crop_scale
    freq_scale: tuple[float, float] = (0.6, 1.5)  # BYOL-A: freq_scale
    time_scale: tuple[float, float] = (0.6, 1.5)  # BYOL-A: time_scale
    objective: bool = True


# What makes a model learn on half an hour of speech in minutes on a CPU; families start from it.
TINY: dict[str, Any] = {
    "num_mels": 40,
    "window": 400,
    "low": 20.0,
    "high": 8000.0,
    "mel_scale": "htk",
    "normalize": "utterance",
    "channels": (16, 32, 64),
    "time_pools": (2, 1, 1),
    "embed_dim": 320,
    "dropout": 0.1,
    "memory": 256,
}


class ClipUpstream(Packing[PackedAudioNTT]):
    """Log-mel front-end, running normalisation, AudioNTT; the objective is the family's.

    Attributes:
        front: waveforms to log-mel spectrograms.
        norm: their normalisation; running statistics are learnt in training.
        encoder: normalised spectrograms to frames.
        mixup: mixes earlier clips in; not there without an objective.
    """

    def __init__(self, config: ClipConfig) -> None:
        """Build what the families share.

        Raises:
            ValueError: settings that do not fit together.
        """
        super().__init__(config)
        self.front = LogMel(
            num_mels=config.num_mels,
            window=config.window,
            low=config.low,
            high=config.high,
            scale=config.mel_scale,
        )
        self.norm: views.RunningNorm | views.OwnNorm = views.OwnNorm()
        if config.normalize == "running":
            self.norm = views.RunningNorm(mean=config.mean, std=config.std, limit=config.norm_clips)
        elif config.normalize != "utterance":
            raise ValueError(
                f"normalize must be 'running' or 'utterance', got {config.normalize!r}"
            )
        self.encoder = AudioNTT(
            num_mels=config.num_mels,
            channels=config.channels,
            time_pools=config.time_pools,
            dim=config.embed_dim,
            dropout=config.dropout,
        )
        self.clip = int(config.clip_seconds * SAMPLE_RATE)
        frames = self.front.num_frames(self.clip)
        if frames < self.encoder.strides[-1]:
            raise ValueError(
                f"clip_seconds must be at least {self.encoder.strides[-1] * STRIDE / SAMPLE_RATE} "
                f"for these time_pools, got {config.clip_seconds}"
            )
        self.least_items = 1 if config.least_clips > 1 else 2  # batch norm
        if config.objective:
            self.mixup = views.Mixup(
                ratio=config.mixup, rows=config.memory, mels=config.num_mels, frames=frames
            )
        self.dim = max(self.encoder.widths)
        self.num_layers = len(self.encoder.widths)
        self.stride = STRIDE * self.encoder.strides[0]

    # -- frozen features ----------------------------------------------------------------------

    def num_frames(self, n_samples: int) -> int:
        """Return floor(spectrogram frames / pooling of the first block), at least 1."""
        return max(1, self.front.num_frames(n_samples) // self.encoder.strides[0])

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield each block's frames and the frame embeddings, float32 (N, D)."""
        packed = self.packed()
        runs = [packed(self.spectrum(wav)) for wav in wavs]
        counts = [self.num_frames(len(wav)) for wav in wavs]
        first = self.encoder.strides[0]
        for layer, stride in enumerate(self.encoder.strides):
            yield torch.cat(
                [
                    _stretched(run[layer], count, stride // first, self.dim)
                    for run, count in zip(runs, counts, strict=True)
                ]
            )

    @torch.no_grad()
    def spectrum(self, wav_S: Tensor) -> Tensor:
        """Return the normalised spectrogram (M, T) of one waveform.

        One that is too short for the encoder is followed by zeros, the mean of all speech.
        """
        x_MT = self.norm(self.front(wav_S[None]))[0]
        return F.pad(x_MT, (0, max(0, self.encoder.strides[-1] - x_MT.shape[1])))

    def _pack(self, dtype: torch.dtype) -> PackedAudioNTT:
        return PackedAudioNTT(self.encoder, dtype=dtype)

    # -- pretraining --------------------------------------------------------------------------

    def views(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return two views (B, M, T) of a clip of each utterance, or of several: see the config.

        In training mode the clips enter the running statistics and, afterwards, the memory.

        Raises:
            ValueError: the model is for features only.
        """
        config: ClipConfig = self.config
        if not config.objective:
            raise ValueError(
                f"this {self.name} has no heads (objective=False: its weights are for features "
                "only); build one with objective=True to train it"
            )
        wavs = batch.wavs()
        wavs = wavs * max(1, -(-config.least_clips // len(wavs)))
        x_BMT = self.front(views.crops(wavs, self.clip, generator=batch.generator))
        if self.training and isinstance(self.norm, views.RunningNorm):
            self.norm.update(x_BMT)
        x_BMT = self.norm(x_BMT)

        def view() -> Tensor:
            return views.resize_crop(
                self.mixup(x_BMT, generator=batch.generator),
                freq=config.freq_scale,
                time=config.time_scale,
                canvas=config.canvas,
                generator=batch.generator,
            )

        a_BMT, b_BMT = view(), view()
        if self.training:
            self.mixup.remember(x_BMT)
        return a_BMT, b_BMT


def projector(inputs: int, widths: Sequence[int], *, bias: bool, norm: bool) -> nn.Sequential:
    """Return linear layers with batch norm and ReLU between them.

    Layers that a batch norm follows have no bias, which it would take away.

    Args:
        inputs: width of the input.
        widths: width of each layer's output, at least one.
        bias: whether the last layer has a bias.
        norm: end with a batch norm without an affine map.

    Raises:
        ValueError: no widths.
    """
    if not widths:
        raise ValueError("a projector needs at least one layer, got no widths")
    layers: list[nn.Module] = []
    for width in widths[:-1]:
        layers += [nn.Linear(inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        inputs = width
    layers.append(nn.Linear(inputs, widths[-1], bias=bias))
    if norm:
        layers.append(nn.BatchNorm1d(widths[-1], affine=False))
    return nn.Sequential(*layers)


def _stretched(x_TW: Tensor, frames: int, repeat: int, width: int) -> Tensor:
    """Return (frames, width): rows ``repeat`` times, the last as often as needed, then zeros."""
    source = torch.arange(frames, device=x_TW.device).div(repeat, rounding_mode="floor")
    return F.pad(x_TW[source.clamp_max(len(x_TW) - 1)], (0, width - x_TW.shape[1]))
