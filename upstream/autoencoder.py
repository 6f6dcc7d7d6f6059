"""Auto-encoders, plain, denoising, variational: a Transformer reads, two layers write it again.

What comes in is to come out again, so something has to keep the model from copying:

* *plain*: a bottleneck. Each frame's last state is squeezed through a linear layer of ``latent``
  units, a fifth to a half of the frame's features (Hinton and Salakhutdinov 2006, Science 313);
* *denoising* (Vincent, Larochelle, Bengio and Manzagol 2008, ICML): no bottleneck, but the model
  sees a damaged input: white noise on the waveform at a random signal-to-noise ratio, or a random
  part of its frames set to zero, one or the other by a draw for each utterance;
* *variational* (Kingma and Welling 2014, arXiv 1312.6114): the bottleneck is a Gaussian in each
  frame, which pays for every nat that it tells: the loss is equation 3 of the paper, per feature,
  with a Laplace likelihood of the best scale, which is the mean absolute error itself (Rybkin,
  Daniilidis and Levine 2021, arXiv 2006.13202, have the same for a Gaussian):
  1 + ln(2 l1) + beta / M sum_z max(free, KL_z), where KL_z = -1/2 (1 + ln s^2 - m^2 - s^2) is a
  latent dimension's mean over the batch. Its first ``free_nats`` cost nothing (free bits: Kingma et
  al. 2016, arXiv 1606.04934), and beta rises from 0 over the first ``warmup`` of the run (Bowman et
  al. 2016, arXiv 1511.06349): without these two a decoder may ignore the code.

Chorowski, Weiss, Bengio and van den Oord 2019 (arXiv 1901.08810) compare such bottlenecks on
speech, with WaveNet as the decoder and a convolution stack as the encoder. Here the spectrum is
decoded frame by frame, and the encoder is the Transformer that other families have too. It projects
the normalised log-mel frames without a layer norm before, which would take each frame's loudness
away.

Hidden states: the input of each layer, the encoder's output, and with a bottleneck the code (for
the variational one its mean), as the first layer of the decoder expands it to the model's width.

Variants: ``base``, ``denoising`` and ``vae`` have the size of Mockingjay's base; ``tiny``,
``tiny-denoising`` and ``tiny-vae`` have 20 ms frames and learn in minutes on a CPU.

Shape suffixes: B batch, S samples, T frames, N frames of the whole batch laid end to end, D width,
M features, Z latent dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.frames import Frames, FrameTransformer
from mynah.upstream.core.select import counted
from mynah.upstream.core.transformer import EncoderConfig

_LEAST_ERROR = 1e-6  # whose logarithm is still taken
_LOG_VARIANCE = 10.0  # largest, either way: beyond it only the exponential overflows


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of an auto-encoder; the defaults are the plain one in the size of Mockingjay's base.

    Attributes:
        num_mels: mel filters.
        stack: consecutive 10 ms frames joined into one frame of the model.
        dim: width of the Transformer.
        layers: its layers.
        heads: its attention heads.
        ffn: its inner width.
        pos_kernel: taps of its convolutional position embedding.
        pos_groups: its groups.
        dropout: of sublayer outputs.
        attention_dropout: of attention weights.
        latent: units of the bottleneck; 0 for none.
        variational: the bottleneck is a Gaussian.
        free_nats: of the divergence of each latent dimension.
        beta: final weight of the divergence.
        warmup: share of the run over which beta rises to that.
        noise_prob: share of utterances that get noise; the others lose frames.
        snr_low: smallest signal-to-noise ratio in dB.
        snr_high: largest.
        blank_prob: share of frames that an utterance without noise loses.
    """

    front: ClassVar[str] = "mel"
    front_norm: ClassVar[bool] = False
    input_dropout: ClassVar[float] = 0.0

    num_mels: int = 80
    stack: int = 1
    dim: int = 768
    layers: int = 3
    heads: int = 12
    ffn: int = 3072
    pos_kernel: int = 128
    pos_groups: int = 16
    dropout: float = 0.1
    attention_dropout: float = 0.1
    latent: int = 32
    variational: bool = False
    free_nats: float = 0.25
    beta: float = 1.0
    warmup: float = 0.2
    noise_prob: float = 0.0
    snr_low: float = 0.0
    snr_high: float = 20.0
    blank_prob: float = 0.0

    def encoder(self) -> EncoderConfig:
        """Return the Transformer's part of the settings."""
        names = {f.name for f in fields(EncoderConfig)} & {f.name for f in fields(self)}
        return EncoderConfig(**{name: getattr(self, name) for name in names})


_TINY: dict[str, Any] = {
    "num_mels": 40,
    "stack": 2,
    "dim": 192,
    "layers": 3,
    "heads": 3,
    "ffn": 768,
    "pos_kernel": 32,
    "dropout": 0.05,
    "attention_dropout": 0.05,
}
_DENOISING: dict[str, Any] = {"latent": 0, "noise_prob": 0.5, "blank_prob": 0.15}

CONFIGS = {
    "base": Config(),
    "denoising": Config(**_DENOISING),
    "vae": Config(latent=64, variational=True),
    "tiny": Config(latent=16, **_TINY),
    "tiny-denoising": Config(**_DENOISING, **_TINY),
    "tiny-vae": Config(latent=32, variational=True, **_TINY),
}


class Autoencoder(FrameTransformer):
    """Log-mel frames, Transformer, bottleneck or none, and a decoder of two layers."""

    name = "autoencoder"
    masks = False
    floors = MappingProxyType({"embedding_std": 0.01})

    beta: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        for name in ("noise_prob", "blank_prob"):
            if not 0 <= getattr(config, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(config, name)}")
        if config.variational and not config.latent:
            raise ValueError("a variational auto-encoder needs latent > 0, got 0")
        self.code: nn.Linear | None = None
        if config.latent:
            self.num_layers += 1
            self.code = nn.Linear(config.dim, config.latent * (2 if config.variational else 1))
        self.expand = nn.Linear(config.latent or config.dim, config.dim)
        self.decode = nn.Sequential(
            nn.GELU(), nn.LayerNorm(config.dim), nn.Linear(config.dim, self.channels)
        )
        if config.variational:
            self.register_buffer("beta", torch.zeros(()))

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the encoder's states and the expanded code, float32 (N, D)."""
        for state_ND in super().hidden_states(wavs):
            yield state_ND
        if self.code is not None:
            latent = self.config.latent
            with torch.no_grad():
                mean_NZ = F.linear(state_ND, self.code.weight[:latent], self.code.bias[:latent])
                state_ND = self.expand(mean_NZ)
            yield state_ND

    # -- pretraining --------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Loss:
        """Return the error of the restored spectrum over all frames, plus the variational terms.

        ``parts`` holds ``l1``, the mean absolute error, and ``mean``, that of predicting the
        utterance's mean spectrum: a model that is not below it has learnt nothing;
        ``embedding_std``, the mean deviation over the batch of what the decoder reads; for the
        variational one ``kl`` (nats per frame) and ``beta``.
        """
        sizes = [int(n) for n in batch.lengths_B]
        wavs = [wav[:n] for wav, n in zip(batch.wav_BS, sizes, strict=True)]
        clean_BTM, counts = self.frontend.raw(wavs)
        seen_BTM = clean_BTM
        if self.config.noise_prob or self.config.blank_prob:
            seen_BTM = self.damaged(wavs, clean_BTM, counts, generator=batch.generator)
        counts_B = counted(counts, clean_BTM.device)
        valid_BT = torch.arange(clean_BTM.shape[1], device=clean_BTM.device) < counts_B[:, None]
        frames = Frames(clean_BTM, seen_BTM, self.frontend.proj(seen_BTM), valid_BT, counts)
        last_ND = self.states(frames)[-1][valid_BT]
        return self.restore(last_ND, clean_BTM[valid_BT], generator=batch.generator)

    def restore(self, last_ND: Tensor, clean_NM: Tensor, *, generator: torch.Generator) -> Loss:
        """Return the objective of given last states.

        Args:
            last_ND: the encoder's output.
            clean_NM: what is to come out.
            generator: CPU generator of the variational code's noise.
        """
        config: Config = self.config
        code_NZ = last_ND if self.code is None else self.code(last_ND)
        read_NZ = code_NZ.float()
        if config.variational:
            code_NZ, log_variance_NZ = read_NZ.chunk(2, dim=1)
            log_variance_NZ = log_variance_NZ.clamp(-_LOG_VARIANCE, _LOG_VARIANCE)
            noise_NZ = torch.randn(code_NZ.shape, generator=generator).to(code_NZ.device)
            read_NZ = code_NZ + (0.5 * log_variance_NZ).exp() * noise_NZ
        restored_NM = self.decode(self.expand(read_NZ))
        error = (restored_NM.float() - clean_NM).abs().mean()
        total = error
        parts = {"l1": error.detach(), "mean": clean_NM.abs().mean()}
        parts["embedding_std"] = code_NZ.detach().float().std(dim=0, correction=0).mean()
        if config.variational:
            square_NZ = code_NZ.square() + log_variance_NZ.exp()
            kl_Z = 0.5 * (square_NZ - 1 - log_variance_NZ).mean(dim=0)
            paid = kl_Z.clamp_min(config.free_nats).sum()
            likelihood = 1 + (2 * error.clamp_min(_LEAST_ERROR)).log()
            total = likelihood + self.beta * paid / clean_NM.shape[1]
            parts["kl"] = kl_Z.detach().sum()
            parts["beta"] = self.beta.clone()
        return Loss(total=total, parts=parts, weight=float(len(clean_NM)))

    def damaged(
        self,
        wavs: Sequence[Tensor],
        clean_BTM: Tensor,
        counts: Sequence[int],
        *,
        generator: torch.Generator,
    ) -> Tensor:
        """Return what a denoising auto-encoder sees (B, T, M), zero-padded.

        Args:
            wavs: waveforms.
            clean_BTM: their features.
            counts: frames of each.
            generator: CPU generator of every random choice.
        """
        config: Config = self.config
        seen_BTM = clean_BTM.clone()
        for row, (wav_S, frames) in enumerate(zip(wavs, counts, strict=True)):
            if float(torch.rand((), generator=generator)) < config.noise_prob:
                share = float(torch.rand((), generator=generator))
                snr = config.snr_low + share * (config.snr_high - config.snr_low)
                noise_S = torch.randn(len(wav_S), generator=generator).to(wav_S)
                level = wav_S.square().mean().sqrt() * 10 ** (-snr / 20)
                seen_BTM[row, :frames] = self.frontend.raw([wav_S + level * noise_S])[0][0]
            else:
                kept_T = torch.rand(frames, generator=generator) >= config.blank_prob
                seen_BTM[row, :frames] *= kept_T[:, None].to(seen_BTM.device)
        return seen_BTM

    def after_step(self, step: int, total_steps: int) -> None:
        """Raise beta."""
        config: Config = self.config
        if config.variational:
            share = min(1.0, step / max(1.0, config.warmup * total_steps))
            self.beta.fill_(config.beta * share)


MODEL = Autoencoder
