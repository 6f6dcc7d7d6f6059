"""BEST-RQ: masked stretches of the spectrum, told by the codes of a random quantiser.

Chiu, Qin, Zhang, Yu and Wu 2022, "Self-supervised learning with random-projection quantizer for
speech recognition" (arXiv 2202.01855). Log-mel frames, normalised and stacked, are projected by a
random matrix; the nearest of 8192 random codes is the label. Stretches of the input are replaced by
noise and the model names the labels there. Nothing but the encoder is ever trained.

What differs: the paper's encoder is a Conformer of 0.6 billion weights on Google's data. ``base`` has
the size of the open replication in SpeechBrain (Whetten et al. 2024, arXiv 2405.04296): 12 layers
of 576, pre-norm, on 40 ms frames, with the shared Transformer and its convolutional position
embedding in place of the Conformer, and stacked frames in place of a convolutional subsampling.

Masking is the paper's: every 10 ms frame begins a stretch of 400 ms with probability 0.01.
SpeechBrain instead hides whole blocks of 40 ms, about 60 % of them: ``mask_prob=0.6, mask_length=4,
mask_grid=4``. With ``codebooks`` > 1 each frame has that many labels and the loss is their mean, as
in NVIDIA's NeMo and in later work (arXiv 2501.16131).

Hidden states: the input of each layer and the encoder's output after the final layer norm, 13 for
base, every 40 ms. SUPERB has no entry of BEST-RQ; tasks that label finer frames need them repeated.

Variants: ``base``; ``tiny`` (20 ms frames, 512 codes) learns in minutes on a CPU.

Shape suffixes: B batch, T frames, P 10 ms frames, C width of a stacked frame, K mel bins, D width,
M predicted frames of the whole batch, V codes, H codebooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.frames import TINY, FrameConfig, FrameTransformer
from mynah.upstream.core.frontend import MelFrontend
from mynah.upstream.core.gumbel import perplexity
from mynah.upstream.core.random_projection import RandomProjection
from mynah.upstream.core.select import counted


@dataclass(frozen=True, kw_only=True)
class Config(FrameConfig):
    """Settings of BEST-RQ; the defaults are the paper's masking and SpeechBrain's size.

    Attributes:
        codes: labels V.
        code_dim: width in which frames and codes are compared.
        codebooks: labels of a frame.
        mask_prob: probability that a stretch begins at a 10 ms frame (of the grid).
        mask_length: its length in 10 ms frames.
        mask_grid: stretches begin at multiples of this many 10 ms frames.
        mask_noise: standard deviation of the noise.
        mask_share: frames are predicted where more than this share of them is noise.
    """

    front: Literal["wave", "mel"] = "mel"
    num_mels: int = 80  # paper: section 4.1
    stack: int = 4  # paper: section 3.1, subsampling by 4
    front_norm: bool = False
    dim: int = 576  # SpeechBrain: d_model
    layers: int = 12  # SpeechBrain: num_encoder_layers
    heads: int = 8  # SpeechBrain: nhead
    ffn: int = 2048  # SpeechBrain: d_ffn
    norm: Literal["post", "pre"] = "pre"  # SpeechBrain: normalize_before
    pos_kernel: int = 64  # 2.6 s, as 128 frames of 20 ms in wav2vec 2.0
    layerdrop: float = 0.0  # SpeechBrain: encoder_layerdrop
    input_dropout: float = 0.1  # SpeechBrain: transformer_dropout
    front_grad: float = 1.0
    codes: int = 8192  # paper: section 4.1
    code_dim: int = 16  # paper: section 4.1
    codebooks: int = 1
    mask_prob: float = 0.01  # paper: section 4.1
    mask_length: int = 40  # paper: section 4.1, 400 ms
    mask_grid: int = 1
    mask_noise: float = 0.1  # paper: section 3.2
    mask_share: float = 0.8  # NeMo: mask_threshold


_TINY: dict[str, Any] = {
    **TINY,
    "norm": "post",
    "codes": 512,
    "mask_prob": 0.02,
    "mask_length": 20,
}

CONFIGS = {"base": Config(), "tiny": Config(num_mels=40, stack=2, **_TINY)}


class BestRq(FrameTransformer):
    """Filterbanks with stretches of noise, Transformer, and a classifier of random codes."""

    name = "best_rq"
    masks: ClassVar[bool] = False
    floors = MappingProxyType({"code_perplexity": 4.0, "prediction_perplexity": 2.0})

    def __init__(self, config: Config) -> None:
        if config.front != "mel":
            raise ValueError(f"front must be 'mel' in best_rq, got {config.front!r}")
        if config.mask_grid < 1 or config.mask_length < 1 or not 0 < config.mask_prob <= 1:
            raise ValueError(
                "mask_prob must be in (0, 1], mask_length and mask_grid at least 1, got "
                f"{config.mask_prob}, {config.mask_length} and {config.mask_grid}"
            )
        if not 0 <= config.mask_share < 1:
            raise ValueError(f"mask_share must be at least 0 and below 1, got {config.mask_share}")
        super().__init__(config)
        self.quantizer = RandomProjection(
            self.channels,
            codes=config.codes,
            code_dim=config.code_dim,
            codebooks=config.codebooks,
        )
        self.classifier = nn.Linear(config.dim, config.codebooks * config.codes)

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the labels of masked frames.

        Section 3 of the paper; the mean is over masked frames and codebooks. ``parts`` holds
        ``prior`` too, the entropy of the labels of the batch, which is the loss of a model that knows
        how frequent they are and nothing else.
        """
        mask_BP = self.draw_mask(batch)
        bins = self.config.num_mels
        noise_XK = torch.randn(int(mask_BP.sum()), bins, generator=batch.generator)
        return self.predict(batch.wavs(), mask_BP, noise_XK * self.config.mask_noise)

    def draw_mask(self, batch: Batch) -> Tensor:
        """Draw which 10 ms frames to hide, bool (B, P); P is a multiple of the stack."""
        config: Config = self.config
        assert isinstance(self.frontend, MelFrontend)
        sizes = [int(n) for n in batch.lengths_B]
        counts_B = torch.tensor([self.frontend.fbank.num_frames(n) for n in sizes])
        width = max(self.num_frames(n) for n in sizes) * config.stack
        place_P = torch.arange(width)
        valid_BP = place_P < counts_B[:, None]
        start_BP = torch.rand(len(sizes), width, generator=batch.generator) < config.mask_prob
        start_BP &= valid_BP & (place_P % config.mask_grid == 0)
        begun_BP = start_BP.long().cumsum(dim=1)
        # hidden where a stretch has begun within the last mask_length frames
        before_BP = F.pad(begun_BP, (config.mask_length, 0))[:, :width]
        return (begun_BP > before_BP) & valid_BP

    def predict(self, wavs: Sequence[Tensor], mask_BP: Tensor, noise_XK: Tensor) -> Loss:
        """Return the objective for a given mask.

        Args:
            wavs: 1-D waveforms.
            mask_BP: true where a 10 ms frame is hidden, false beyond an utterance's end.
            noise_XK: what stands in for hidden frames, utterance by utterance.
        """
        config: Config = self.config
        raw_BTC, counts = self.frontend.raw(wavs)
        device = raw_BTC.device
        mask_BP = mask_BP.to(device)
        counts_B = counted(counts, device)
        valid_BT = torch.arange(raw_BTC.shape[1], device=device) < counts_B[:, None]
        seen_BPK = raw_BTC.unflatten(2, (config.stack, -1)).flatten(1, 2).clone()
        seen_BPK[mask_BP] = noise_XK.to(seen_BPK)
        seen_BTC = seen_BPK.unflatten(1, (-1, config.stack)).flatten(2)
        # what is left over at an utterance's end is filled up with zeros, not with speech
        hidden_BT = mask_BP.unflatten(1, (-1, config.stack)).float().mean(dim=2) > config.mask_share
        hidden_BT &= valid_BT
        x_BTD = self.input_dropout(self.frontend.proj(self.frontend.norm(seen_BTC)))
        padding_BT = valid_BT if len(set(counts)) > 1 else None
        last_MD = self.encoder(x_BTD, padding_BT)[-1][hidden_BT]
        logits_MHV = self.classifier(last_MD).float().unflatten(1, (config.codebooks, config.codes))
        labels_MH = self.quantizer(raw_BTC[hidden_BT])
        total = F.cross_entropy(logits_MHV.flatten(0, 1), labels_MH.flatten(), reduction="sum")
        total = total / max(1, labels_MH.numel())
        with torch.no_grad():
            parts = _health(logits_MHV, labels_MH)
        parts["cross_entropy"] = total.detach()
        return Loss(total=total, parts=parts, weight=float(max(1, len(labels_MH))))


def _health(logits_MHV: Tensor, labels_MH: Tensor) -> dict[str, Tensor]:
    """Return accuracy, the labels' entropy, and how many codes are used, means over codebooks."""
    frames, books, codes = logits_MHV.shape
    if not frames:
        return {}
    counts_HV = torch.stack([row.bincount(minlength=codes) for row in labels_MH.T])
    share_HV = counts_HV.float() / frames
    answers_HV = logits_MHV.softmax(dim=2).mean(dim=0)
    return {
        "accuracy": (logits_MHV.argmax(dim=2) == labels_MH).float().mean(),
        "prior": torch.special.entr(share_HV).sum(dim=1).mean(),
        "code_perplexity": perplexity(share_HV) / books,
        "prediction_perplexity": perplexity(answers_HV) / books,
    }


MODEL = BestRq
