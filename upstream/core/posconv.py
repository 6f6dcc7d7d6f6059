"""The convolutional position embeddings: one grouped convolution over 128 frames, or a stack.

wav2vec 2.0, HuBERT and WavLM add GELU(conv(x)) to their frames; the weight is normalised per tap
(``weight_norm`` with dim = 2: the norm is over outputs and inputs, one gain per tap) and an even
kernel's surplus last frame is dropped. Source: Baevski et al. 2020 (arXiv 2006.11477) section 2,
fairseq's ``make_conv_pos``.

With 128 taps this layer is a filter bank, and filters are cheapest in the frequency domain:
:class:`PackedPosConv` cuts the frames into overlapping blocks of 256 (overlap-save), multiplies
spectra group by group, and keeps the 129 frames of each block that no wrap-around touches. That is
about a thirtieth of the arithmetic of the direct form, and equal to it to 4e-7. Training on GPUs does
the same (:func:`correlate`): their libraries have no fast kernel for so many taps in groups.

data2vec's stack (:class:`PositionalStack`) is five short ones, each followed by a layer norm without
weights and a GELU: Baevski et al. 2022 (arXiv 2202.03555) section 3, fairseq's ``pos_conv_depth``.

Shape suffixes: B batch, T frames, N frames of a ragged batch, D width, U blocks, K taps, G groups,
I inputs of a group, O outputs of a group, F frequency bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.narrow_convs import adds_up, is_narrow

_FFT = 256


class PositionalConv(nn.Module):
    """``GELU(conv(x))`` with as many frames out as in; the caller adds it to x.

    Args:
        dim: width D.
        kernel: taps K.
        groups: groups G, a divisor of ``dim``.
    """

    def __init__(self, dim: int, *, kernel: int = 128, groups: int = 16) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"pos_groups must divide the width {dim}, got {groups}")
        self.dim, self.kernel, self.groups = dim, kernel, groups
        weight_OIK = torch.randn(dim, dim // groups, kernel) * (4 / (kernel * dim)) ** 0.5
        self.direction = nn.Parameter(weight_OIK)
        self.gain = nn.Parameter(weight_OIK.norm(dim=(0, 1), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(dim))

    def weight(self) -> Tensor:
        """Return the normalised weight (O, I, K)."""
        norm_11K = self.direction.norm(dim=(0, 1), keepdim=True)
        weight_OIK: Tensor = self.direction * (self.gain / norm_11K)
        return weight_OIK

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Return (B, T, D); frames beyond an utterance's end must be zero."""
        frames = x_BTD.shape[1]
        if x_BTD.device.type == "cuda":
            y_BTD = correlate(x_BTD, self.weight(), groups=self.groups)
            return F.gelu((y_BTD + self.bias).to(x_BTD.dtype))
        narrow = is_narrow(self.direction.shape[1], self.kernel)
        cast = torch.is_autocast_enabled("cpu") and (not narrow or adds_up())
        with torch.autocast("cpu", enabled=cast):
            y_BDT = F.conv1d(
                (x_BTD if cast else x_BTD.to(self.bias.dtype)).transpose(1, 2),
                self.weight(),
                self.bias,
                padding=self.kernel // 2,
                groups=self.groups,
            )
        return F.gelu(y_BDT[:, :, :frames]).transpose(1, 2)


def correlate(x_BTD: Tensor, weight_OIK: Tensor, *, groups: int) -> Tensor:
    """Return the grouped "convolution" of K taps around each frame, float32 (B, T, O), by FFT.

    Differentiable; the blocks of a batch are one product per group and frequency. The zeros around
    an utterance are K // 2 on the left, and the surplus frame of an even K is dropped.

    Args:
        x_BTD: frames, zero beyond an utterance's end.
        weight_OIK: filters.
        groups: G.
    """
    with torch.autocast(x_BTD.device.type, enabled=False):
        batch, frames, _ = x_BTD.shape
        taps = weight_OIK.shape[2]
        size = max(_FFT, 1 << (2 * taps - 1).bit_length())
        hop = size - taps + 1
        count = -(-frames // hop)
        before = taps // 2
        after = (count - 1) * hop + size - before - frames
        blocks_BUDT = F.pad(x_BTD.float(), (0, 0, before, after)).unfold(1, size, hop)
        x_BUGIF = torch.fft.rfft(blocks_BUDT).unflatten(2, (groups, -1))
        x_GFNI = x_BUGIF.flatten(0, 1).permute(1, 3, 0, 2)
        weight_GOIF = torch.fft.rfft(weight_OIK.float(), n=size).unflatten(0, (groups, -1))
        weight_GFIO = weight_GOIF.conj().permute(0, 3, 2, 1)
        y_NGOF = (x_GFNI @ weight_GFIO).permute(2, 0, 3, 1)
        y_NOT = torch.fft.irfft(y_NGOF.flatten(1, 2), n=size)[..., :hop]
        y_BTO = y_NOT.transpose(1, 2).reshape(batch, count * hop, -1)
        kept_BTO: Tensor = y_BTO[:, :frames]
        return kept_BTO


class PackedPosConv:
    """The same over a ragged batch with fixed weights, by overlap-save; float32, no gradients."""

    def __init__(self, conv: PositionalConv) -> None:
        self.kernel, self.groups = conv.kernel, conv.groups
        self.size = max(_FFT, 1 << (2 * conv.kernel - 1).bit_length())
        self.hop = self.size - self.kernel + 1
        self.before = self.kernel // 2
        width = conv.dim // conv.groups
        weight_GOIK = conv.weight().detach().double().view(conv.groups, width, width, conv.kernel)
        # The conjugate spectrum correlates, which is what neural "convolutions" do.
        spectrum_GOIF = torch.fft.rfft(weight_GOIK, n=self.size).conj().to(torch.complex64)
        self.weight_GFIO = spectrum_GOIF.permute(0, 3, 2, 1).contiguous()
        self.bias_D = conv.bias.detach().float()

    def __call__(self, x_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return GELU(conv(x)) (N, D) in float32; each utterance sees zeros around itself."""
        # Each utterance gets blocks of its own that hold it between zeros: a block that reached into
        # a neighbour would carry that one's rounding into frames of silence.
        counts = [-(-length // self.hop) for length in lengths]
        width = x_ND.shape[1]
        rooms = [(count - 1) * self.hop + self.size for count in counts]
        buffer_TD = x_ND.new_zeros(sum(rooms), width, dtype=torch.float32)
        parts = x_ND.split(list(lengths))
        blocks = []
        for part_TD, room_TD in zip(parts, buffer_TD.split(rooms), strict=True):
            room_TD[self.before : self.before + len(part_TD)] = part_TD
            blocks.append(room_TD.unfold(0, self.size, self.hop).transpose(1, 2))
        blocks_UTD = torch.cat(blocks)
        spectrum_UFD = torch.fft.rfft(blocks_UTD, dim=1)
        out_UFD = torch.empty_like(spectrum_UFD)
        for weight_FIO, x_UFI, y_UFO in zip(
            self.weight_GFIO,
            spectrum_UFD.chunk(self.groups, dim=2),
            out_UFD.chunk(self.groups, dim=2),
            strict=True,
        ):
            y_UFO.copy_(torch.bmm(x_UFI.transpose(0, 1), weight_FIO).transpose(0, 1))
        y_UTD = torch.fft.irfft(out_UFD, n=self.size, dim=1)[:, : self.hop]
        y_TD = y_UTD.reshape(-1, width)
        out_ND = torch.empty(len(x_ND), width, dtype=torch.float32, device=x_ND.device)
        row = 0
        for out_TD, count in zip(out_ND.split(list(lengths)), counts, strict=True):
            torch.add(y_TD[row : row + len(out_TD)], self.bias_D, out=out_TD)
            row += count * self.hop
        return F.gelu(out_ND)


class PositionalStack(nn.Module):
    """``depth`` times (convolution, layer norm over channels without weights, GELU).

    As many frames out as in; the caller adds the result to x.

    Args:
        dim: width D.
        kernel: taps of each convolution.
        groups: groups, a divisor of ``dim``.
        depth: number of convolutions.
    """

    def __init__(self, dim: int, *, kernel: int = 19, groups: int = 16, depth: int = 5) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"pos_groups must divide the width {dim}, got {groups}")
        self.dim, self.kernel = dim, kernel
        self.convs = nn.ModuleList(
            nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups) for _ in range(depth)
        )

    def forward(self, x_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Return (B, T, D); frames where ``valid_BT`` is false count as zero for every layer."""
        frames = x_BTD.shape[1]
        for conv in self.convs:
            if valid_BT is not None:
                x_BTD = x_BTD * valid_BT[..., None]
            y_BTD = conv(x_BTD.transpose(1, 2))[:, :, :frames].transpose(1, 2)
            x_BTD = F.gelu(F.layer_norm(y_BTD, (self.dim,)))
        return x_BTD


class PackedPosStack:
    """The same over a ragged batch: one utterance at a time, zeros around it; no gradients."""

    def __init__(self, stack: PositionalStack) -> None:
        self.stack = stack

    def __call__(self, x_ND: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return (N, D) in float32."""
        parts = [self.stack(part_TD[None].float())[0] for part_TD in x_ND.split(list(lengths))]
        return torch.cat(parts)
