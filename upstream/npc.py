"""NPC: each frame of the spectrum is told from the frames around it, without looking at itself.

Liu, Chung and Glass 2020, "Non-autoregressive predictive coding for learning speech representations
from local dependencies" (arXiv 2011.00406). A stack of convolution blocks sees the frames; after
each block a masked convolution, whose middle taps are missing, collects what lies around a frame
but not the frame, and the sum of these passes a vector quantiser and has to give the frame back.
The mask grows by two taps per block, so that what a block has already mixed stays out. The base is
the model behind SUPERB's ``npc`` row; a frame sees kernel + 2 blocks = 23 frames, without the
middle 5 after the masked convolutions.

What differs from the authors' code: batch norm takes its statistics from the utterances' own
frames, there from the padding too; the missing taps are not kept as weights, nor biases that batch
norm cancels.

Hidden states, as SUPERB counts them: each block's output and the masked convolution of it, block by
block, then the sum that the quantiser gets.

Variants: ``base``; ``tiny`` has 20 ms frames, of which it leaves out the middle five, and learns in
minutes on a CPU.

Shape suffixes: B batch, T frames, N frames of the whole batch laid end to end, D width, M features,
O outputs, I inputs, K kernel taps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from mynah.upstream.core import mel
from mynah.upstream.core.contract import Batch, Loss
from mynah.upstream.core.framenorm import fold, on_frames, valid_frames
from mynah.upstream.core.gumbel_groups import GumbelGroups
from mynah.upstream.core.health import spread
from mynah.upstream.core.packed_linear import PackedConv1d, PackedLinear
from mynah.upstream.core.packing import Packing


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of NPC; the defaults are those of SUPERB's ``npc``.

    Attributes:
        num_mels: mel filters of the input.
        stack: consecutive 10 ms frames joined into one frame of the model.
        dim: width of every layer.
        blocks: convolution blocks.
        kernel: taps of a masked convolution, odd.
        mask: frames in the middle that the prediction must not depend on, odd.
        dropout: inside a block.
        codes: number of codes of each group of channels of the sum; none: no quantisation.
        code_dims: channels of each group, in all as many as ``dim``.
        gumbel_temperature: of the choice of codes in training.
    """

    num_mels: int = 80  # s3prl: feat_dim
    stack: int = 1
    dim: int = 512  # s3prl: hidden_size
    blocks: int = 4  # s3prl: n_blocks
    kernel: int = 15  # s3prl: kernel_size
    mask: int = 5  # s3prl: mask_size
    dropout: float = 0.1  # s3prl: dropout
    codes: tuple[int, ...] = (64, 64, 64, 64)  # s3prl: vq.codebook_size
    code_dims: tuple[int, ...] = (128, 128, 128, 128)  # s3prl: vq.code_dim
    gumbel_temperature: float = 1.0  # s3prl: vq.gumbel_temperature


CONFIGS = {
    "base": Config(),
    "tiny": Config(
        num_mels=40,
        stack=2,
        dim=192,
        blocks=3,
        kernel=15,
        mask=5,
        dropout=0.05,
        code_dims=(48, 48, 48, 48),
    ),
}


class Npc(Packing["list[tuple[PackedBlock, PackedMaskedConv]]"]):
    """Convolution blocks, masked convolutions, quantiser, and a linear map back to the spectrum."""

    name = "npc"
    least_frames = 2  # batch norm

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.blocks < 1 or config.kernel % 2 == 0 or config.mask % 2 == 0 or config.mask < 1:
            raise ValueError(
                "NPC needs at least one block and an odd kernel and mask, got "
                f"blocks={config.blocks}, kernel={config.kernel}, mask={config.mask}"
            )
        if config.mask + 2 * config.blocks >= config.kernel:
            raise ValueError(
                f"the last mask is mask + 2 blocks = {config.mask + 2 * config.blocks} taps and must "
                f"be shorter than the kernel of {config.kernel}: lengthen it or take fewer blocks"
            )
        grouped = len(config.codes) == len(config.code_dims)
        if not grouped or (config.codes and sum(config.code_dims) != config.dim):
            raise ValueError(
                "codes and code_dims must be as many, and code_dims must add up to dim="
                f"{config.dim}, got codes={config.codes} and code_dims={config.code_dims}"
            )
        self.dim = config.dim
        self.num_layers = 2 * config.blocks + 1
        self.stride = mel.STRIDE * config.stack
        self.front = mel.KaldiFbank(num_mels=config.num_mels, window="hamming")
        features = config.num_mels * config.stack
        self.blocks = nn.ModuleList(
            Block(config.dim if index else features, config.dim, dropout=config.dropout)
            for index in range(config.blocks)
        )
        self.masked = nn.ModuleList(
            MaskedConv(config.dim, kernel=config.kernel, mask=config.mask + 2 * (index + 1))
            for index in range(config.blocks)
        )
        self.quantizers = GumbelGroups(
            config.codes, config.code_dims, temperature=config.gumbel_temperature
        )
        self.floors = {"embedding_std": 0.01}
        if config.codes:  # with fewer than two per group the quantiser lets nothing through
            self.floors = {"code_perplexity": 2.0 * len(config.codes)}
        self.predict = nn.Linear(config.dim, features)

    # -- frozen features ----------------------------------------------------------------------

    def num_frames(self, n_samples: int) -> int:
        """Return ceil(filterbank frames / stack)."""
        return mel.stacked(self.front.num_frames(n_samples), self.config.stack)

    def features(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return the normalised inputs (N, M) and the number of frames of each utterance."""
        x_NM, counts = self.front(wavs)
        return mel.normalised(x_NM, counts, factor=self.config.stack)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield each block's output, the masked convolution of it, and at last their sum (N, D)."""
        packed = self.packed()
        x_NM, counts = self.features(wavs)
        frames = list(x_NM.split(counts))
        total_ND = x_NM.new_zeros(len(x_NM), self.dim)
        for block, masked in packed:
            with torch.no_grad():
                frames = [block(x_TD) for x_TD in frames]
                state_ND = torch.cat(frames).float()
            yield state_ND
            with torch.no_grad():
                state_ND = torch.cat([masked(x_TD) for x_TD in frames]).float()
                total_ND += state_ND
            yield state_ND
        yield total_ND

    def _pack(self, dtype: torch.dtype) -> list[tuple[PackedBlock, PackedMaskedConv]]:
        return [
            (PackedBlock(block, dtype=dtype), PackedMaskedConv(masked, dtype=dtype))
            for block, masked in zip(self.blocks, self.masked, strict=True)
            if isinstance(block, Block) and isinstance(masked, MaskedConv)
        ]

    # -- pretraining --------------------------------------------------------------------------

    def loss(self, batch: Batch) -> Loss:
        """Return the mean absolute error of the frames over the utterances' own frames.

        ``parts`` holds two errors that a model has to be below: ``mean``, of predicting the
        utterance's mean spectrum, and ``copy``, of copying the nearest frame that is not masked;
        and ``code_perplexity``, exp(entropy) of the codes' use in the batch, summed over the groups,
        or without codes ``embedding_std``, the mean deviation over the batch of the sum.

        Raises:
            ValueError: the batch has a single frame, of which batch norm knows no variance.
        """
        sizes = [int(n) for n in batch.lengths_B]
        x_NM, counts = self.features([w[:n] for w, n in zip(batch.wav_BS, sizes, strict=True)])
        if len(x_NM) < 2:
            raise ValueError(
                "the batch has a single frame and batch norm needs two: leave out the shortest "
                f"utterances ({', '.join(batch.ids[:5])})"
            )
        sum_ND = self.collect(x_NM, counts)
        health: dict[str, Tensor] = {}
        if self.quantizers:
            sum_ND, health["code_perplexity"] = self.quantizers(sum_ND, generator=batch.generator)
        else:
            health["embedding_std"] = spread(sum_ND)
        total = F.l1_loss(self.predict(sum_ND).float(), x_NM)
        parts = {"l1": total.detach(), "mean": x_NM.abs().mean(), **health}
        away = self.config.mask // 2 + 1
        shifts = [x[away:] - x[:-away] for x in x_NM.split(counts) if len(x) > away]
        if shifts:
            parts["copy"] = torch.cat(shifts).abs().mean()
        return Loss(total=total, parts=parts, weight=float(len(x_NM)))

    def collect(self, x_NM: Tensor, counts: Sequence[int]) -> Tensor:
        """Return the sum (N, D) of the masked convolutions; differentiable.

        Args:
            x_NM: inputs of all utterances.
            counts: frames of each.
        """
        x_BTD = pad_sequence(list(x_NM.split(list(counts))), batch_first=True)
        valid_BT = valid_frames(counts, x_NM.device)
        sums = []
        for block, masked in zip(self.blocks, self.masked, strict=True):
            x_BTD = block(x_BTD, valid_BT)
            sums.append(masked(x_BTD))
        sum_BTD = torch.stack(sums).sum(dim=0)
        return sum_BTD.flatten(0, 1) if valid_BT is None else sum_BTD[valid_BT]


class Block(nn.Module):
    """Convolution over three frames, then a linear layer, both with batch norm; ReLU; residual sum."""

    def __init__(self, inputs: int, dim: int, *, dropout: float) -> None:
        super().__init__()
        self.residual = inputs == dim
        self.conv = nn.Conv1d(inputs, dim, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm1d(dim)
        self.linear = nn.Linear(dim, dim, bias=False)
        self.norm2 = nn.BatchNorm1d(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTI: Tensor, valid_BT: Tensor | None) -> Tensor:
        """Return (B, T, D), zero where not valid, as the next convolution pads it."""
        y_BTD = self.conv(x_BTI.transpose(1, 2)).transpose(1, 2)
        y_BTD = on_frames(self._frames, y_BTD, valid_BT)
        return (y_BTD + x_BTI if self.residual else y_BTD).relu()

    def _frames(self, y_ND: Tensor) -> Tensor:
        y_ND = self.norm2(self.linear(self.norm1(y_ND).relu()))
        return self.dropout(y_ND)  # type: ignore[no-any-return]


class MaskedConv(nn.Module):
    """A convolution without its middle taps, then tanh.

    Args:
        dim: width D of input and output.
        kernel: taps with the missing ones, odd.
        mask: missing ones, odd, fewer than ``kernel``.
    """

    def __init__(self, dim: int, *, kernel: int, mask: int) -> None:
        super().__init__()
        full = nn.Conv1d(dim, dim, kernel)  # drawn as the authors' code draws it
        self.reach = kernel // 2
        self.side = (kernel - mask) // 2
        weight_OIK = torch.cat([full.weight[..., : self.side], full.weight[..., -self.side :]], -1)
        self.weight_OIK = nn.Parameter(weight_OIK.detach())
        self.bias = nn.Parameter(full.bias.detach()) if full.bias is not None else None

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return (B, T, D); frames beyond an utterance's end must be zero."""
        x_BDT = F.pad(x_BTD.transpose(1, 2), (self.reach, self.reach))
        seen = x_BTD.shape[1] + self.side - 1
        before_BDT = F.conv1d(x_BDT[..., :seen], self.weight_OIK[..., : self.side])
        after_BDT = F.conv1d(x_BDT[..., -seen:], self.weight_OIK[..., self.side :], self.bias)
        return (before_BDT + after_BDT).transpose(1, 2).tanh()


class PackedBlock:
    """A block in eval mode with fixed weights over one utterance; no gradients."""

    def __init__(self, block: Block, *, dtype: torch.dtype) -> None:
        self.residual = block.residual
        self.dtype = dtype
        weight_OIK, bias_O = fold(block.conv.weight, block.conv.bias, block.norm1)
        self.conv = PackedConv1d(weight_OIK, bias_O, stride=1, dtype=dtype)
        self.linear = PackedLinear(
            *fold(block.linear.weight, block.linear.bias, block.norm2), dtype=dtype
        )

    def __call__(self, x_TI: Tensor) -> Tensor:
        """Return (T, D) in the packed dtype."""
        x_TI = x_TI.to(self.dtype)
        y_TD = self.linear(self.conv(F.pad(x_TI, (0, 0, 1, 1))).relu_())
        return (y_TD.add_(x_TI) if self.residual else y_TD).relu_()


class PackedMaskedConv:
    """A masked convolution with fixed weights over one utterance; no gradients."""

    def __init__(self, masked: MaskedConv, *, dtype: torch.dtype) -> None:
        self.reach, self.side = masked.reach, masked.side
        before_OIK, after_OIK = masked.weight_OIK.split(self.side, dim=-1)
        self.before = PackedConv1d(before_OIK, None, stride=1, dtype=dtype)
        self.after = PackedConv1d(after_OIK, masked.bias, stride=1, dtype=dtype)

    def __call__(self, x_TD: Tensor) -> Tensor:
        """Return (T, D) in the dtype of the input."""
        seen = len(x_TD) + self.side - 1
        x_TD = F.pad(x_TD, (0, 0, self.reach, self.reach))
        return self.before(x_TD[:seen]).add_(self.after(x_TD[-seen:])).tanh_()


MODEL = Npc
