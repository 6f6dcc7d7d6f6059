"""Multiply-accumulates of the parts that our upstreams are made of, worked out by hand.

These are the counts of the architecture, as the plain (trainable) modules compute it. Frozen
inference does less or other work for the same numbers: Fourier transforms in place of the
128-tap position embedding, norms folded into weights, nothing computed that no frame sees.

Names: T frames, D width, F inner width, K taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from mynah.upstream.core.aggregator import Aggregator, Extractor
    from mynah.upstream.core.audiontt import AudioNTT
    from mynah.upstream.core.codebooks import Bottleneck
    from mynah.upstream.core.frontend import Frontend
    from mynah.upstream.core.transformer import Encoder

DELTA_TAPS = 5  # of Kaldi's add-deltas, which SUPERB counts as a convolution of each feature


def linear(layer: nn.Linear, rows: int) -> int:
    """Return rows times inputs times outputs."""
    return rows * layer.in_features * layer.out_features


def convolution(layer: nn.Conv1d | nn.Conv2d, outputs: int) -> int:
    """Return the count of a convolution that is evaluated at ``outputs`` places."""
    return outputs * layer.weight.numel()


def recurrent(network: nn.GRU | nn.LSTM, frames: int) -> int:
    """Return all gates of inputs and states of all layers and directions, at each frame."""
    weights = sum(p.numel() for name, p in network.named_parameters() if "weight" in name)
    return frames * weights


def filters(filters_FM: Tensor, frames: int) -> int:
    """Return a filter bank's product of bins and filters; its Fourier transform is free."""
    return frames * filters_FM.numel()


def deltas(features: int, frames: int, *, order: int) -> int:
    """Return the slopes of ``features``, the slopes of these ..., five taps each."""
    return order * DELTA_TAPS * features * frames


def frontend(front: Frontend, samples: int) -> tuple[int, int]:
    """Return the count up to the projected frames, and their number T."""
    from mynah.upstream.core.frontend import MelFrontend, WaveFrontend

    frames = front.num_frames(samples)
    if isinstance(front, WaveFrontend):
        samples = max(samples, front.conv.width)
        layers = [block.conv for block in front.conv]
        raw, frames = stack(layers, samples)  # type: ignore[arg-type]  # of nn.Sequential
    elif isinstance(front, MelFrontend):
        raw = filters(front.fbank.filters_FM, front.fbank.num_frames(samples))
    else:
        raise TypeError(f"no closed form of a {type(front).__name__}")
    return raw + linear(front.proj, frames), frames


def stack(layers: Sequence[nn.Conv1d], inputs: int) -> tuple[int, int]:
    """Return the count of convolutions one after the other, and how many frames come out."""
    total = 0
    for layer in layers:
        seen = inputs + 2 * int(layer.padding[0])
        inputs = (seen - layer.kernel_size[0]) // layer.stride[0] + 1
        total += convolution(layer, inputs)
    return total, inputs


def encoder(model: Encoder, frames: int) -> int:
    """Return position embedding and layers of a Transformer over T frames."""
    config = model.config
    each = 4 * config.dim**2 + 2 * config.dim * config.ffn  # q, k, v, o; in and out
    if config.bias == "gated":
        each += 8 * config.dim  # eight outputs for each head's part of the input
    pairs = seen(frames, config.window)
    return position(model, frames) + config.layers * (frames * each + 2 * pairs * config.dim)


def position(model: Encoder, frames: int) -> int:
    """Return the convolutional position embedding: an even K computes a frame too many."""
    config = model.config
    if config.position == "none":
        return 0
    depth = config.pos_depth if config.position == "conv-stack" else 1
    outputs = frames + 1 - config.pos_kernel % 2
    return depth * outputs * config.dim * (config.dim // config.pos_groups) * config.pos_kernel


def seen(frames: int, window: int) -> int:
    """Return pairs of query and key: all, or what truncated attention computes block by block."""
    if not window:
        return frames**2
    size, total = max(window, 64), 0
    for start in range(0, frames, size):
        stop = min(frames, start + size)
        total += (stop - start) * (min(frames, stop + window) - max(0, start - window))
    return total


def extractor(model: Extractor, samples: int) -> tuple[int, int]:
    """Return the count of wav2vec's convolutions over samples or log-mel frames, and T."""
    total, inputs = 0, samples
    if model.fbank is not None:
        bank = model.fbank.num_frames(samples)
        total, inputs = filters(model.fbank.filters_FM, bank), -(-bank // model.stack)
    count, frames = stack([layer.conv for layer in model.convs], max(inputs, model.width))
    return total + count, frames


def aggregator(model: Aggregator, frames: int) -> int:
    """Return wav2vec's context convolutions, each over T frames and what is put before them."""
    return sum(convolution(layer.conv, frames) for layer in model.convs)


def bottleneck(model: Bottleneck, frames: int) -> int:
    """Return the products of choosing codes and, where they are products, of their vectors."""
    from mynah.upstream.core.codebooks import BinaryCode, GumbelOneHot, VectorQuantizer

    if isinstance(model, VectorQuantizer):
        return frames * model.codebook_VD.numel()
    if isinstance(model, GumbelOneHot | BinaryCode):
        return linear(model.logits, frames) + linear(model.codebook, frames)
    raise TypeError(f"no closed form of a {type(model).__name__}")


def choice(quantizer: nn.Module, frames: int) -> int:
    """Return the products of choosing vq-wav2vec's codes."""
    from mynah.upstream.core.deep_gumbel import DeepGumbel
    from mynah.upstream.core.kmeans_quantizer import KmeansQuantizer

    if isinstance(quantizer, KmeansQuantizer):
        groups, codes = quantizer.groups, quantizer.codes
        width = quantizer.vectors_GVC.shape[2]
        return frames * (quantizer.proj.weight.numel() + groups * codes * width)
    if isinstance(quantizer, DeepGumbel):
        layers = [layer for layer in quantizer.hidden if isinstance(layer, nn.Linear)]
        return sum(linear(layer, frames) for layer in [*layers, quantizer.logits])
    raise TypeError(f"no closed form of a {type(quantizer).__name__}")


def audio_ntt(model: AudioNTT, mels: int, frames: int) -> int:
    """Return BYOL-A's encoder over a spectrogram, which each block pools after its convolution."""
    from mynah.upstream.core.audiontt import Block

    total = 0
    for block in model.blocks:
        if isinstance(block, Block):
            total += convolution(block.conv, mels * frames)
            mels, frames = mels // 2, frames // block.pool
    return total + linear(model.fc1, frames) + linear(model.fc2, frames)
