"""The convolutional encoder of bshall's VQ-VAE: log-mel frames at 100 Hz to frames at 50 Hz.

Five convolutions with BatchNorm and ReLU, the third of which halves the rate. van Niekerk, Nortje
and Kamper 2020 (arXiv 2005.09409), bshall/ZeroSpeech ``model.py``.

:class:`ConvEncoder` is trainable on padded batches, with statistics over true frames only;
:class:`PackedConvEncoder` runs the same weights over one utterance.

Shape suffixes: B batch, T frames, N frames of the whole batch laid end to end, C channels,
M features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.packed_linear import PackedConv1d
from mynah.upstream.core.select import counted

KERNELS, STRIDES = (3, 3, 4, 3, 3), (1, 1, 2, 1, 1)
RATE = 2  # frames in per frame out
FIRST = STRIDES.index(RATE)  # the first convolution whose output has the final rate


class ConvBlock(nn.Module):
    """Convolution, BatchNorm over the true frames of the batch, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, padding=1, bias=False)
        self.norm = nn.BatchNorm1d(outputs)
        self.stride = stride

    def forward(self, x_BTC: Tensor, valid_BT: Tensor) -> Tensor:
        """Return (B, T', C), zero where ``valid_BT``, of the output, is false."""
        y_BTC = self.conv(x_BTC.transpose(1, 2)).transpose(1, 2)
        y_NC = F.relu(self.norm(y_BTC[valid_BT]))
        out_BTC = y_NC.new_zeros(y_BTC.shape)
        out_BTC[valid_BT] = y_NC
        return out_BTC

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the convolution that does convolution and norm in eval mode.

        There BatchNorm is a scale and a shift per channel.
        """
        seen = dict(self.norm.named_buffers())
        scale_C = self.norm.weight / (seen["running_var"] + self.norm.eps).sqrt()
        shift_C = self.norm.bias - seen["running_mean"] * scale_C
        return self.conv.weight * scale_C[:, None, None], shift_C


class ConvEncoder(nn.ModuleList):
    """Five blocks.

    Args:
        features: width M of the frames.
        channels: width C of every block.
    """

    def __init__(self, features: int, channels: int) -> None:
        widths = [features] + [channels] * (len(KERNELS) - 1)
        super().__init__(
            ConvBlock(width, channels, kernel, stride)
            for width, kernel, stride in zip(widths, KERNELS, STRIDES, strict=True)
        )

    def blocks(self) -> list[ConvBlock]:
        """Return the blocks in the order in which they are applied."""
        return [block for block in self if isinstance(block, ConvBlock)]

    def forward(self, x_BTM: Tensor, counts: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Return the last output, laid end to end (N, C), and the frames of each utterance.

        Args:
            x_BTM: frames, zero-padded.
            counts: frames of each utterance, even.
        """
        frames = list(counts)
        x_BTC, inside_BT = x_BTM, valid(frames, x_BTM.device)
        for block in self.blocks():
            if block.stride > 1:
                frames = [count // block.stride for count in frames]
                inside_BT = valid(frames, x_BTM.device)
            x_BTC = block(x_BTC, inside_BT)
        return x_BTC[inside_BT], frames


class PackedConvEncoder:
    """The same with fixed weights over one utterance; float32, no gradients."""

    def __init__(self, encoder: ConvEncoder) -> None:
        self.convs = [
            PackedConv1d(*block.folded(), stride=block.stride) for block in encoder.blocks()
        ]

    def __call__(self, x_TM: Tensor, index: int) -> Tensor:
        """Return the output (T', C) of block ``index`` for its input."""
        return F.relu(self.convs[index](F.pad(x_TM, (0, 0, 1, 1))))


def valid(counts: Sequence[int], device: torch.device) -> Tensor:
    """Return bool (B, T), true on the frames of each utterance."""
    counts_B = counted(counts, device)
    return torch.arange(max(counts), device=device) < counts_B[:, None]
