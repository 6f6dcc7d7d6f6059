"""AudioNTT2020: the small convolutional encoder of BYOL-A and DeLoRes.

Koizumi et al. 2020, "The NTT DCASE2020 challenge task 6 system" (arXiv 2007.00225), as Niizumi et
al. 2021 (arXiv 2103.06695) use it: three blocks of a 3 x 3 convolution, batch norm, ReLU and max
pooling over mel bins and frames; what is left of the mel axis is laid side by side for each frame,
and two linear layers with ReLU make the frame's embedding. A sound's embedding is the maximum over
its frames plus their mean.

The published convolutions have a bias, which the batch norm behind them takes away again: here they
have none (a reader of published weights subtracts it from the running mean).

:class:`AudioNTT` is trainable and takes sounds of one length; :class:`PackedAudioNTT` runs the same
weights on a sound of any length, in pieces whose memory does not grow with it.

Shape suffixes: B batch, M mel bins, T frames, C channels, W width of a block's frames (channels
times mel bins), D width of the embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.packed_linear import pack

# Spectrogram frames of a piece: the activations of the first block stay in cache.
_PIECE = {"cpu": 512}
_PIECE_ACCELERATOR = 1 << 14


class Block(nn.Module):
    """Convolution, batch norm, ReLU, max pooling.

    Args:
        inputs: channels in.
        outputs: channels out.
        pool: frames that are pooled into one; mel bins are always pooled by two.
    """

    def __init__(self, inputs: int, outputs: int, pool: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.pool = pool

    def forward(self, x_BCMT: Tensor) -> Tensor:
        """Return (B, C', M // 2, T // pool)."""
        return F.max_pool2d(F.relu(self.norm(self.conv(x_BCMT))), (2, self.pool))


class AudioNTT(nn.Module):
    """Normalised log-mel spectrograms to frame embeddings.

    Attributes:
        widths: width W of each block's frames and D of the embedding.
        strides: spectrogram frames per frame of each of these.
    """

    def __init__(
        self,
        *,
        num_mels: int,
        channels: Sequence[int],
        time_pools: Sequence[int],
        dim: int,
        dropout: float,
    ) -> None:
        """Build the encoder.

        Args:
            num_mels: M.
            channels: channels of each block.
            time_pools: frames that each block pools into one.
            dim: width D of the embedding.
            dropout: between the two linear layers.

        Raises:
            ValueError: no blocks, not as many pools as blocks, or too few mel bins to halve.
        """
        super().__init__()
        if not channels or len(channels) != len(time_pools):
            raise ValueError(
                f"channels and time_pools must be as many and at least one, got {list(channels)} "
                f"and {list(time_pools)}"
            )
        if num_mels >> len(channels) < 1:
            raise ValueError(
                f"{len(channels)} blocks halve the mel bins too often: num_mels must be at least "
                f"{1 << len(channels)}, got {num_mels}"
            )
        inputs = [1, *channels[:-1]]
        self.blocks = nn.ModuleList(map(Block, inputs, channels, time_pools))
        mels = [num_mels >> depth for depth in range(1, len(channels) + 1)]
        self.widths = [c * m for c, m in zip(channels, mels, strict=True)] + [dim]
        strides = [math.prod(time_pools[: depth + 1]) for depth in range(len(channels))]
        self.strides = [*strides, strides[-1]]
        self.fc1 = nn.Linear(self.widths[-2], dim)
        self.fc2 = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BMT: Tensor) -> list[Tensor]:
        """Return each block's frames, each (B, T', W), and the frame embeddings (B, T', D).

        Args:
            x_BMT: normalised spectrograms of at least ``strides[-1]`` frames.
        """
        x_BCMT = x_BMT[:, None]
        states = []
        for block in self.blocks:
            x_BCMT = block(x_BCMT)
            states.append(_frames(x_BCMT))
        hidden = self.dropout(F.relu(self.fc1(states[-1])))
        return [*states, F.relu(self.fc2(hidden))]

    def embed(self, x_BMT: Tensor) -> Tensor:
        """Return the embedding (B, D) of each sound."""
        return pool(self(x_BMT)[-1])


def pool(x_BTD: Tensor) -> Tensor:
    """Return the maximum over frames plus the mean over frames: (B, D)."""
    return x_BTD.amax(dim=1) + x_BTD.mean(dim=1)


class PackedAudioNTT:
    """An encoder with fixed weights: batch norms folded into the convolutions; no gradients."""

    def __init__(self, encoder: AudioNTT, *, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.step = encoder.strides[-1]
        self.strides = encoder.strides
        self.layers = []
        wrong = 0  # frames at a piece's edge that see zeros in place of the neighbouring piece
        for block in encoder.blocks:
            if isinstance(block, Block):
                self.layers.append((*_folded(block, dtype), (2, block.pool)))
                wrong = -(-(wrong + 1) // block.pool)
        self.halo = wrong * self.step
        self.linear = [pack(layer, dtype=dtype) for layer in (encoder.fc1, encoder.fc2)]

    @torch.no_grad()
    def __call__(self, x_MT: Tensor) -> list[Tensor]:
        """Return the states of one sound, each float32 (T', W), exactly as the encoder's.

        Args:
            x_MT: normalised spectrogram of at least ``strides[-1]`` frames.
        """
        total = x_MT.shape[1]
        size = _PIECE.get(x_MT.device.type, _PIECE_ACCELERATOR)
        size = max(size, self.halo) // self.step * self.step
        # the last piece takes what is left, and at least one whole step of it
        starts = list(range(0, max(total - self.step, 0) + 1, size))
        runs = [
            self._piece(x_MT, start, stop)
            for start, stop in zip(starts, [*starts[1:], total], strict=True)
        ]
        return [torch.cat(parts) for parts in zip(*runs, strict=True)]

    def _piece(self, x_MT: Tensor, start: int, stop: int) -> list[Tensor]:
        """Return the states of spectrogram frames start to stop, seen with their neighbours."""
        begin, end = max(0, start - self.halo), min(x_MT.shape[1], stop + self.halo)
        x_1CMT = x_MT[None, None, :, begin:end].to(self.dtype)
        states = []
        for (weight, bias, pools), stride in zip(self.layers, self.strides[:-1], strict=True):
            x_1CMT = F.max_pool2d(F.relu(F.conv2d(x_1CMT, weight, bias, padding=1)), pools)
            rows = slice((start - begin) // stride, (stop - begin) // stride)
            states.append(_frames(x_1CMT)[0, rows])
        embedded = states[-1]
        for linear in self.linear:
            embedded = F.relu(linear(embedded.contiguous()))
        return [state.float() for state in (*states, embedded)]


def _frames(x_BCMT: Tensor) -> Tensor:
    """Return (B, T, M C): the channels of each mel bin side by side."""
    return x_BCMT.permute(0, 3, 2, 1).flatten(2)


def _folded(block: Block, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the convolution followed by its batch norm in eval mode."""
    norm = block.norm
    mean_C, variance_C = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale_C = norm.weight.double() / (variance_C.double() + norm.eps).sqrt()
    bias_C = norm.bias.double() - scale_C * mean_C.double()
    weight = block.conv.weight.double() * scale_C[:, None, None, None]
    return weight.detach().to(dtype), bias_C.detach().to(dtype)
