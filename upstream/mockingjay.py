"""Mockingjay, TERA, AudioALBERT: a bidirectional Transformer restores a corrupted spectrum.

Liu, Yang, Chi, Hsu and Lee 2020, "Mockingjay: unsupervised speech representation learning with
deep bidirectional Transformer encoders" (arXiv 1910.12638), in s3prl's later form: 80 log-mel
features of a waveform at -25 dBFS, normalised in each utterance, plus sinusoidal positions, into a
post-norm Transformer. In training 15 % of the frames are chosen in spans of 7; the model sees them
as zeros (80 % of utterances), as other frames (10 %) or as they are (10 %), and predicts them.

TERA (Liu, Li and Lee 2021, arXiv 2007.06028) also zeroes a band of frequencies in each utterance,
which is predicted as well, and puts noise on 15 % of the batches. AudioALBERT (Chi, Chung, Wu,
Hsieh, Chen, Li and Lee 2021, arXiv 2005.08575) is Mockingjay with one layer that is applied L
times.

Hidden states, as SUPERB counts them: the normalised sum of projection and positions, then the
output of each layer.

Variants: ``base`` is the paper's base size (3 layers) with s3prl's ``logMelBase`` settings, input
and target the same log-mel; ``large`` is the model behind SUPERB's ``mockingjay`` row (12 layers,
log-mel in, 201 log-linear bins out); ``tera`` and ``audio_albert`` are the models behind the rows
of these names (3 layers); ``tiny``, ``tiny-tera`` and ``tiny-albert`` have 20 ms frames and learn
in minutes on a CPU.

Shape suffixes: B batch, T frames, N frames of a ragged batch, D width, M input features,
O target features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mynah.upstream.core import mel
from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.corruption import corrupt, frequency_band, magnitude_noise
from mynah.upstream.core.health import spread
from mynah.upstream.core.packing import Packing
from mynah.upstream.core.select import counted
from mynah.upstream.core.transformer import Encoder, EncoderConfig, PackedEncoder


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of Mockingjay and its relatives; the defaults are s3prl's ``logMelBase``.

    Attributes:
        num_mels: mel filters of the input.
        stack: consecutive 10 ms frames joined into one frame of the model.
        target: predict the input (``mel``) or the log-linear spectrum (``linear``).
        dim: width of the Transformer.
        layers: its layers.
        heads: its attention heads.
        ffn: its inner width.
        norm_eps: epsilon of its layer norms.
        shared: one layer is applied ``layers`` times.
        position: ``sinusoid`` vectors as published, or ``conv``, the convolution of wav2vec 2.0.
        pos_kernel: taps of that convolution.
        pos_groups: its groups.
        dropout: of the input and of sublayer outputs.
        attention_dropout: of attention weights.
        mask_prob: share of frames to choose if spans did not overlap.
        mask_length: frames of a span.
        zero_share: share of utterances whose chosen frames become zero.
        swap_share: share of utterances whose chosen frames become others of the utterance.
        band_share: largest band of frequencies to zero, as a share of the mel filters.
        noise_prob: share of batches with noise on the input.
        noise_std: standard deviation of that noise; features have 1.
        max_frames: longer utterances are cut into equal pieces of at most this many frames that do
            not see each other: later positions were never trained, and cost stays linear.
    """

    num_mels: int = 80  # s3prl: audio.n_mels
    stack: int = 1
    target: Literal["mel", "linear"] = "mel"  # s3prl: audio.target.feat_type
    dim: int = 768  # s3prl: hidden_size
    layers: int = 3  # s3prl: num_hidden_layers
    heads: int = 12  # s3prl: num_attention_heads
    ffn: int = 3072  # s3prl: intermediate_size
    norm_eps: float = 1e-12  # s3prl: layer_norm_eps
    shared: bool = False  # s3prl: share_layer
    position: Literal["sinusoid", "conv"] = "sinusoid"
    pos_kernel: int = 32
    pos_groups: int = 16
    dropout: float = 0.1  # s3prl: hidden_dropout_prob
    attention_dropout: float = 0.1  # s3prl: attention_probs_dropout_prob
    mask_prob: float = 0.15  # s3prl: mask_proportion
    mask_length: int = 7  # s3prl: mask_consecutive_min = mask_consecutive_max
    zero_share: float = 0.8
    swap_share: float = 0.1
    band_share: float = 0.0  # s3prl: mask_frequency
    noise_prob: float = 0.0  # s3prl: noise_proportion
    noise_std: float = 0.2  # s3prl: a constant
    max_frames: int = 1500  # s3prl: sequence_length


_TINY: dict[str, Any] = {
    "num_mels": 40,
    "stack": 2,
    "dim": 192,
    "layers": 3,
    "heads": 3,
    "ffn": 768,
    "position": "conv",
    "dropout": 0.05,
    "attention_dropout": 0.05,
    "mask_prob": 0.5,
    "mask_length": 4,
    "max_frames": 750,
}

CONFIGS = {
    "base": Config(),
    "large": Config(layers=12, target="linear"),
    "tera": Config(band_share=0.2, noise_prob=0.15),  # s3prl: logMelBase_T_F_M
    "audio_albert": Config(shared=True),  # s3prl: logMelBase_T_share
    "tiny": Config(**_TINY),
    "tiny-tera": Config(band_share=0.2, noise_prob=0.15, **_TINY),
    "tiny-albert": Config(shared=True, **_TINY),
}


class Mockingjay(Packing[PackedEncoder]):
    """Normalised log-mel features, positions, Transformer and a head that predicts a spectrum."""

    name = "mockingjay"
    floors = MappingProxyType({"embedding_std": 0.01})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.target not in ("mel", "linear"):
            raise ValueError(f"target must be 'mel' or 'linear', got {config.target!r}")
        if config.position not in ("sinusoid", "conv"):
            raise ValueError(f"position must be 'sinusoid' or 'conv', got {config.position!r}")
        if config.band_share and config.target != "mel":
            raise ValueError(
                "band_share > 0 hides bins of the input and predicts the same bins: it needs "
                f"target='mel', got {config.target!r}"
            )
        self.dim = config.dim
        self.num_layers = config.layers + 1
        self.stride = mel.STRIDE * config.stack
        self.front = mel.LogSpectrogram(num_mels=config.num_mels)
        self.proj = nn.Linear(config.num_mels * config.stack, config.dim)
        self.encoder = Encoder(
            EncoderConfig(
                dim=config.dim,
                layers=config.layers,
                heads=config.heads,
                ffn=config.ffn,
                norm="post",
                norm_eps=config.norm_eps,
                position="conv" if config.position == "conv" else "none",
                pos_kernel=config.pos_kernel,
                pos_groups=config.pos_groups,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
                shared=config.shared,
            )
        )
        bins = config.num_mels if config.target == "mel" else self.front.num_linear
        self.head = nn.Sequential(
            nn.Linear(config.dim, config.dim),
            nn.GELU(),
            nn.LayerNorm(config.dim, eps=config.norm_eps),
            nn.Linear(config.dim, bins * config.stack),
        )
        for module in (self.proj, *self.head):
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        if config.position == "conv":
            # An utterance that does not vary is all zeros once normalised; without position
            # vectors the layer norm would then blow up nothing but rounding errors.
            nn.init.normal_(self.proj.bias, std=0.02)

    # -- frozen features ----------------------------------------------------------------------

    def num_frames(self, n_samples: int) -> int:
        """Return ceil(spectrogram frames / stack)."""
        return mel.stacked(self.front.num_frames(n_samples), self.config.stack)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the embedded input and the output of each layer, float32 (N, D)."""
        encoder = self.packed()
        x_NM, _, counts = self.spectra(wavs)
        counts = [n for count in counts for n in _cut(count, self.config.max_frames)]
        with torch.no_grad():
            x_ND = self.proj(x_NM)
            if self.config.position == "sinusoid":
                table_TD = positions(max(counts), self.dim, x_NM.device)
                x_ND += torch.cat([table_TD[:count] for count in counts])
        yield from encoder(x_ND, counts)

    def _pack(self, dtype: torch.dtype) -> PackedEncoder:
        return PackedEncoder(self.encoder, dtype=dtype)

    def spectra(self, wavs: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[int]]:
        """Return the input (N, M), the target (N, O), and the number of frames of each utterance.

        Both are normalised in each utterance, then stacked.
        """
        factor = self.config.stack
        log_mel, linear, counts = self.front(wavs, linear=self.config.target == "linear")
        x_NM, stacked = mel.normalised(log_mel, counts, factor=factor)
        if linear is None:
            return x_NM, x_NM, stacked
        return x_NM, mel.normalised(linear, counts, factor=factor)[0], stacked

    # -- pretraining --------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Loss:
        """Return the mean absolute error of the predicted spectrum over what is to be restored.

        That is all of the chosen frames, and the hidden band of every frame. ``parts`` holds
        ``mean`` too, the error of predicting the utterance's mean spectrum: a model that is not
        below it has learnt nothing; and ``embedding_std``, the mean deviation over the batch of the
        encoder's output.
        """
        sizes = [int(n) for n in batch.lengths_B]
        wavs = [wav[:n] for wav, n in zip(batch.wav_BS, sizes, strict=True)]
        x_NM, y_NO, counts = self.spectra(wavs)
        counts = [n for count in counts for n in _cut(count, self.config.max_frames)]
        x_NM, wanted_NO = self.corrupted(x_NM, counts, generator=batch.generator)
        counts_B = counted(counts, x_NM.device)
        x_BTM = pad_sequence(x_NM.split(counts), batch_first=True)
        valid_BT = torch.arange(x_BTM.shape[1], device=x_NM.device) < counts_B[:, None]
        x_BTD = self.proj(x_BTM)
        if self.config.position == "sinusoid":
            x_BTD = x_BTD + positions(x_BTM.shape[1], self.dim, x_NM.device)
        padded = len(set(counts)) > 1
        last_ND = self.encoder(x_BTD, valid_BT if padded else None)[-1][valid_BT]
        asked_N = wanted_NO.any(dim=1)
        y_XO = y_NO[asked_N]
        wanted_XO = wanted_NO[asked_N].expand_as(y_XO)
        wanted = wanted_XO.sum()
        error_XO = (self.head(last_ND[asked_N]).float() - y_XO).abs()
        total = (error_XO * wanted_XO).sum() / wanted
        return Loss(
            total=total,
            parts={
                "l1": total.detach(),
                "mean": (y_XO.abs() * wanted_XO).sum() / wanted,
                "embedding_std": spread(last_ND),
            },
            weight=float(wanted) / y_NO.shape[1],
        )

    def corrupted(
        self, x_NM: Tensor, counts: Sequence[int], *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return what the model sees (N, M), and true where it is to restore what was (N, M).

        The second is (N, 1) where a frame is asked for as a whole or not at all.

        Args:
            x_NM: features of all utterances.
            counts: frames of each.
            generator: CPU generator of every random choice.
        """
        config: Config = self.config
        seen, wanted = [], []
        for part_TM in x_NM.split(list(counts)):
            change = corrupt(
                len(part_TM),
                prob=config.mask_prob,
                length=config.mask_length,
                zero_share=config.zero_share,
                swap_share=config.swap_share,
                generator=generator,
            )
            keep_TM = change.keep_T[:, None]
            wanted_TM = change.chosen_T[:, None]
            if config.band_share:
                band_F = frequency_band(
                    config.num_mels, share=config.band_share, generator=generator
                )
                band_M = band_F.repeat(config.stack)  # the same bins of each stacked frame
                keep_TM = keep_TM & ~band_M
                wanted_TM = wanted_TM | band_M
            source_T = change.source_T.to(x_NM.device)
            seen.append(part_TM[source_T] * keep_TM.to(x_NM.device))
            wanted.append(wanted_TM)
        seen_NM = torch.cat(seen)
        if config.noise_prob:
            seen_NM = magnitude_noise(
                seen_NM, prob=config.noise_prob, std=config.noise_std, generator=generator
            )
        return seen_NM, torch.cat(wanted).to(x_NM.device)


def positions(frames: int, dim: int, device: torch.device) -> Tensor:
    """Return sinusoidal position vectors (T, D): sine and cosine of t / 10000^(2i/D) interleaved.

    Vaswani et al. 2017 (arXiv 1706.03762) section 3.5.
    """
    time_T1 = torch.arange(frames, dtype=torch.float64)[:, None]
    rate_X = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(10000.0) / dim))
    angle_TX = time_T1 * rate_X
    table_TD = torch.stack([angle_TX.sin(), angle_TX.cos()], dim=2).flatten(1)[:, :dim]
    return table_TD.to(device=device, dtype=torch.float32)


def _cut(frames: int, limit: int) -> list[int]:
    """Return the sizes of the fewest equal pieces of at most ``limit``; the last may be shorter."""
    size = math.ceil(frames / math.ceil(frames / limit))
    return [min(size, frames - start) for start in range(0, frames, size)]


MODEL = Mockingjay
