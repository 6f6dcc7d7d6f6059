"""VQ-VAE: an auto-encoder whose frames pass through a discrete code: units learnt from sound alone.

van den Oord, Vinyals and Kavukcuoglu 2017, "Neural discrete representation learning" (arXiv
1711.00937), in the form of van Niekerk, Nortje and Kamper 2020, "Vector-quantized neural networks
for acoustic unit discovery in the ZeroSpeech 2020 challenge" (arXiv 2005.09409), whose code
(bshall/ZeroSpeech) the sizes come from: five convolutions over log-mel frames, the third of which
halves the rate to 50 Hz, a linear layer to 64 numbers, and one of 512 codes. In training the code
of a frame is replaced by that of a neighbour with probability ``jitter``, so that a code has to
tell more than its own 20 ms (time jitter: Chorowski et al. 2019, arXiv 1901.08810).

What differs: the decoder writes the log-mel frames again (L1) instead of the waveform: two
bidirectional GRUs, as wide as the published network that prepares the input of the vocoder. The
published decoder knows who speaks. Here nobody does, so it gets a vector read from the utterance
itself, the time mean of the last convolution's output: codes need not tell the voice. Features are
normalised in each utterance, where the published ones are not, and codes start on frames and return
to them when nobody uses them.

The bottleneck may also be a Gumbel-softmax over one-hot codes, or a code of independent bits:
see :mod:`mynah.upstream.core.codebooks`.

Hidden states, all at 50 Hz: the outputs of the three convolutions from the halving one on, the
frame before its code, and the code; the last two as the first layer of the decoder expands them to
the width of the others. :meth:`VqVae.units` gives the codes themselves.

Variants: ``base``; ``tiny``, ``tiny-gumbel`` and ``tiny-binary`` learn in minutes on a CPU.

Shape suffixes: B batch, S samples, T frames, N frames of the whole batch laid end to end, C
channels, M features, Z width of a code's vector, U width of the utterance's vector.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_sequence

from mynah.upstream.core import mel
from mynah.upstream.core.codebooks import (
    BinaryCode,
    Bottleneck,
    Coded,
    GumbelOneHot,
    VectorQuantizer,
)
from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.packed_linear import PackedLinear, pack
from mynah.upstream.core.packing import Packing
from mynah.upstream.core.select import counted
from mynah.upstream.core.unit_encoder import (
    FIRST,
    KERNELS,
    RATE,
    ConvEncoder,
    PackedConvEncoder,
    valid,
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a VQ-VAE; the defaults are those of bshall/ZeroSpeech.

    Attributes:
        num_mels: mel filters.
        channels: width of the convolutions and of every hidden state.
        code_dim: width of a frame before its code, and of a code's vector.
        bottleneck: ``vq`` for the nearest vector of a codebook, ``gumbel`` for a one-hot code,
            ``binary`` for bits.
        codes: number of codes of ``vq`` and ``gumbel``.
        bits: of a ``binary`` code.
        commitment: ``vq``: weight of the distance of frames to their codes.
        decay: ``vq``: share of the codebook that is kept per step.
        patience: ``vq``: steps without a frame after which a code starts anew.
        gumbel_start: ``gumbel``: first temperature.
        gumbel_end: ``gumbel``: last one.
        diversity: ``gumbel`` and ``binary``: weight of the term that asks for an even use.
        jitter: probability that a frame is decoded from a neighbour's code, in training.
        utterance_dim: width of the vector that tells the decoder what the whole utterance is like.
        decoder_dim: units of the decoder's GRUs, each way.
        decoder_layers: number of these.
    """

    num_mels: int = 80  # bshall: preprocessing.n_mels
    channels: int = 768  # bshall: encoder.channels
    code_dim: int = 64  # bshall: encoder.embedding_dim
    bottleneck: Literal["vq", "gumbel", "binary"] = "vq"
    codes: int = 512  # bshall: encoder.n_embeddings
    bits: int = 9
    commitment: float = 0.25  # bshall: commitment_cost
    decay: float = 0.999  # bshall: decay
    patience: int = 100
    gumbel_start: float = 2.0
    gumbel_end: float = 0.5
    diversity: float = 0.1
    jitter: float = 0.5  # bshall: encoder.jitter
    utterance_dim: int = 64  # bshall: decoder.speaker_embedding_dim
    decoder_dim: int = 128  # bshall: decoder.conditioning_channels
    decoder_layers: int = 2  # bshall: a constant


_TINY: dict[str, Any] = {
    "num_mels": 40,
    "channels": 192,
    "code_dim": 64,
    "codes": 64,
    "bits": 8,
    "decay": 0.95,
    "patience": 10,
    "utterance_dim": 32,
    "decoder_dim": 96,
    "decoder_layers": 1,
}

CONFIGS = {
    "base": Config(),
    "tiny": Config(**_TINY),
    "tiny-gumbel": Config(bottleneck="gumbel", **_TINY),
    "tiny-binary": Config(bottleneck="binary", **_TINY),
}


class VqVae(Packing["_Packed"]):
    """Convolutions, a discrete bottleneck, and a recurrent decoder."""

    name = "vq_vae"
    least_frames = 2  # batch norm
    floors = MappingProxyType({"code_perplexity": 4.0})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.dim = config.channels
        self.num_layers = len(KERNELS) - FIRST + 2
        self.stride = mel.STRIDE * RATE
        self.front = mel.KaldiFbank(num_mels=config.num_mels, window="hamming")
        self.encoder = ConvEncoder(config.num_mels, config.channels)
        self.narrow = nn.Linear(config.channels, config.code_dim)
        self.bottleneck = build_bottleneck(config)
        self.expand = nn.Linear(config.code_dim, config.channels)
        self.utterance = nn.Linear(config.channels, config.utterance_dim)
        self.decoder = nn.GRU(
            config.channels + config.utterance_dim,
            config.decoder_dim,
            num_layers=config.decoder_layers,
            batch_first=True,
            bidirectional=True,
        )
        self.predict = nn.Linear(2 * config.decoder_dim, config.num_mels)

    # -- frozen features ----------------------------------------------------------------------

    def num_frames(self, n_samples: int) -> int:
        """Return ceil(filterbank frames / 2)."""
        return mel.stacked(self.front.num_frames(n_samples), RATE)

    def features(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return the normalised log-mel frames (N, M) and the number of frames of each utterance.

        An odd number is made even by a frame of zeros, the utterance's mean.
        """
        x_NM, counts = self.front(wavs)
        parts = mel.cmvn(x_NM, counts).split(counts)
        even = [F.pad(part, (0, 0, 0, len(part) % RATE)) for part in parts]
        return torch.cat(even), [len(part) for part in even]

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the convolutions' outputs at 50 Hz, the frame and its code, float32 (N, C).

        Everything is computed in float32 and one utterance at a time: a code is a decision, and
        rounding must not decide otherwise among neighbours or in half the digits.
        """
        packed = self.packed()
        with torch.no_grad():
            xs = [self.features([wav])[0] for wav in wavs]
        for index in range(len(KERNELS)):
            with torch.no_grad():
                xs = [packed.encoder(x_TC, index) for x_TC in xs]
            if index >= FIRST:
                yield torch.cat(xs)
        with torch.no_grad():
            zs = [packed.narrow(x_TC) for x_TC in xs]
            before_NC = torch.cat([packed.expand(z_TZ) for z_TZ in zs])
        yield before_NC
        with torch.no_grad():
            coded: list[Coded] = [packed.bottleneck(z_TZ) for z_TZ in zs]
            after_NC = torch.cat([packed.expand(code.vectors_MD) for code in coded])
        yield after_NC

    @torch.no_grad()
    def units(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Return the code of every frame, int64 (T,) for each utterance."""
        packed = self.packed()
        found = []
        for wav in wavs:
            x_TC, _ = self.features([wav])
            for index in range(len(KERNELS)):
                x_TC = packed.encoder(x_TC, index)
            coded: Coded = packed.bottleneck(packed.narrow(x_TC))
            found.append(coded.codes_M)
        return found

    def _pack(self, dtype: torch.dtype) -> _Packed:
        del dtype  # a code is a decision: always in float32
        return _Packed(self)

    # -- pretraining --------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Loss:
        """Return the mean absolute error of the decoded log-mel frames + the bottleneck's terms.

        ``parts`` holds ``mean`` too, the error of predicting the utterance's mean spectrum, and
        ``code_perplexity``, exp(entropy) of the use of codes in the batch.
        """
        sizes = [int(n) for n in batch.lengths_B]
        wavs = [wav[:n] for wav, n in zip(batch.wav_BS, sizes, strict=True)]
        x_NM, counts = self.features(wavs)
        x_BTM = pad_sequence(x_NM.split(counts), batch_first=True)
        last_NC, counts = self.encoder(x_BTM, counts)
        coded: Coded = self.bottleneck(self.narrow(last_NC), generator=batch.generator)
        vectors_NZ = coded.vectors_MD
        if self.training and self.config.jitter:
            source_N = jittered(counts, prob=self.config.jitter, generator=batch.generator)
            vectors_NZ = vectors_NZ[source_N.to(vectors_NZ.device)]
        restored_NM = self.decode(vectors_NZ, last_NC, counts)
        true_N = torch.cat(
            [
                torch.arange(RATE * count) < self.front.num_frames(n)
                for count, n in zip(counts, sizes, strict=True)
            ]
        ).to(x_NM.device)
        error = (restored_NM.float() - x_NM)[true_N].abs().mean()
        total = error + sum(coded.losses.values())
        parts = {"l1": error.detach(), "mean": x_NM[true_N].abs().mean()}
        parts |= {name: term.detach() for name, term in coded.losses.items()}
        parts["code_perplexity"] = coded.code_perplexity
        return Loss(total=total, parts=parts, weight=float(len(last_NC)))

    def decode(self, vectors_NZ: Tensor, last_NC: Tensor, counts: Sequence[int]) -> Tensor:
        """Return log-mel frames (2 N, M).

        Args:
            vectors_NZ: codes' vectors of a ragged batch.
            last_NC: outputs of the last convolution, of which the decoder gets the time mean.
            counts: codes of each utterance.
        """
        sizes = list(counts)
        means_BC = torch.stack([part.mean(dim=0) for part in last_NC.split(sizes)])
        about_BU = self.utterance(means_BC)
        counts_B = counted(sizes, last_NC.device)
        about_NU = about_BU.repeat_interleave(counts_B, dim=0, output_size=len(last_NC))
        x_NX = torch.cat([self.expand(vectors_NZ), about_NU], dim=1)
        x_NX = x_NX.repeat_interleave(RATE, dim=0)
        frames = [RATE * count for count in sizes]
        padded = pad_sequence(x_NX.split(frames), batch_first=True)
        packed: PackedSequence = pack_padded_sequence(
            padded, torch.tensor(frames), batch_first=True, enforce_sorted=False
        )
        out_BTX, _ = nn.utils.rnn.pad_packed_sequence(self.decoder(packed)[0], batch_first=True)
        restored_NM: Tensor = self.predict(out_BTX[valid(frames, out_BTX.device)])
        return restored_NM

    def after_step(self, step: int, total_steps: int) -> None:
        """Move the codebook, or lower the temperature."""
        self.bottleneck.after_step(step, total_steps)


class _Packed:
    """The model with fixed weights over one utterance; float32, no gradients."""

    def __init__(self, model: VqVae) -> None:
        with torch.no_grad():
            self.encoder = PackedConvEncoder(model.encoder)
            self.narrow: PackedLinear = pack(model.narrow)
            self.expand: PackedLinear = pack(model.expand)
            self.bottleneck = copy.deepcopy(model.bottleneck).eval()


def build_bottleneck(config: Config) -> Bottleneck:
    """Return the bottleneck that a config names.

    Raises:
        ValueError: unknown name.
    """
    if config.bottleneck == "vq":
        return VectorQuantizer(
            config.code_dim,
            codes=config.codes,
            commitment=config.commitment,
            decay=config.decay,
            patience=config.patience,
        )
    if config.bottleneck == "gumbel":
        return GumbelOneHot(
            config.code_dim,
            codes=config.codes,
            start=config.gumbel_start,
            end=config.gumbel_end,
            diversity=config.diversity,
        )
    if config.bottleneck == "binary":
        return BinaryCode(config.code_dim, bits=config.bits, diversity=config.diversity)
    raise ValueError(f"bottleneck must be 'vq', 'gumbel' or 'binary', got {config.bottleneck!r}")


def jittered(counts: Sequence[int], *, prob: float, generator: torch.Generator) -> Tensor:
    """Return, for each frame of a ragged batch, the frame (N,) whose code stands in its place.

    With probability ``prob`` / 2 each it is the one before or the one after; an utterance's first
    and last frame keep their own where that would be another utterance's.

    Args:
        counts: frames of each utterance.
        prob: probability of a neighbour.
        generator: CPU generator, the only source of randomness.
    """
    counts_B = torch.tensor(list(counts))
    last_N = torch.repeat_interleave(counts_B.cumsum(0) - 1, counts_B)
    first_N = torch.repeat_interleave(counts_B.cumsum(0) - counts_B, counts_B)
    drawn_N = torch.rand(len(last_N), generator=generator)
    step_N = (drawn_N > 1 - prob / 2).long() - (drawn_N < prob / 2).long()
    place_N = torch.arange(len(last_N)) + step_N
    return torch.minimum(torch.maximum(place_N, first_N), last_N)


MODEL = VqVae
