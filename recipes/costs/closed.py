"""Multiply-accumulates of our own families in closed form: no run, exact at every length.

What is counted is what the hidden states need: what only pretraining uses (predictions, quantisers
of targets) is left out. :mod:`mynah.recipes.costs.counter` counts the same of the trainable modules
as they run; tests hold the two equal for every family and variant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import nn

from mynah.recipes.costs import parts

if TYPE_CHECKING:
    from mynah.upstream.core.contract import Upstream

Form = Callable[[Any, int], int]


def form_of(upstream: Upstream) -> Callable[[int], int] | None:
    """Return the multiply-accumulates of an utterance by its samples, None for no family of ours."""
    form = _forms().get(type(upstream))
    if form is None:
        from mynah.upstream.core.clips import ClipUpstream
        from mynah.upstream.core.frames import FrameTransformer

        for base, its in ((FrameTransformer, _frames), (ClipUpstream, _clip)):
            same = type(upstream).hidden_states is base.hidden_states
            form = its if isinstance(upstream, base) and same else form
    return None if form is None else (lambda samples: form(upstream, samples))


def _forms() -> dict[type, Form]:
    from mynah.upstream.apc import Apc
    from mynah.upstream.autoencoder import Autoencoder
    from mynah.upstream.code_bert import CodeBert
    from mynah.upstream.cpc import Cpc
    from mynah.upstream.distilhubert import Distilhubert
    from mynah.upstream.fbank import Fbank
    from mynah.upstream.mockingjay import Mockingjay
    from mynah.upstream.npc import Npc
    from mynah.upstream.vq_vae import VqVae
    from mynah.upstream.vq_wav2vec import VqWav2Vec
    from mynah.upstream.wav2vec import Wav2Vec

    return {
        Apc: _apc,
        Autoencoder: _autoencoder,
        CodeBert: _code_bert,
        Cpc: _cpc,
        Distilhubert: _distilhubert,
        Fbank: _fbank,
        Mockingjay: _mockingjay,
        Npc: _npc,
        VqVae: _vq_vae,
        VqWav2Vec: _vq_wav2vec,
        Wav2Vec: _wav2vec,
    }


def _frames(model: Any, samples: int) -> int:
    count, frames = parts.frontend(model.frontend, samples)
    return count + parts.encoder(model.encoder, frames)


def _distilhubert(model: Any, samples: int) -> int:
    head = model.dim**2 + model.dim * model.config.teacher_dim
    return _frames(model, samples) + int(model.shown * head * model.num_frames(samples))


def _autoencoder(model: Any, samples: int) -> int:
    bottleneck = 0 if model.code is None else 2 * model.dim * model.config.latent
    return _frames(model, samples) + int(bottleneck * model.num_frames(samples))


def _fbank(model: Any, samples: int) -> int:
    frames, mels = model.num_frames(samples), model.config.num_mels
    slopes = parts.deltas(mels, frames, order=model.config.deltas)
    return parts.filters(model.front.filters_FM, frames) + slopes


def _apc(model: Any, samples: int) -> int:
    frames = model.num_frames(samples)
    count = parts.filters(model.front.filters_FM, model.front.num_frames(samples))
    return count + sum(parts.recurrent(layer, frames) for layer in model.layers)


def _npc(model: Any, samples: int) -> int:
    """A masked convolution has all its taps, those in the middle being zero, as published."""
    frames, kernel = model.num_frames(samples), model.config.kernel
    count = parts.filters(model.front.filters_FM, model.front.num_frames(samples))
    for block in model.blocks:
        count += parts.convolution(block.conv, frames) + parts.linear(block.linear, frames)
    return int(count + len(model.masked) * frames * kernel * model.dim**2)


def _mockingjay(model: Any, samples: int) -> int:
    from mynah.upstream.mockingjay import _cut

    frames = model.num_frames(samples)
    count = parts.filters(model.front.filters_FM, model.front.num_frames(samples))
    pieces = _cut(frames, model.config.max_frames)
    count += parts.linear(model.proj, frames)
    return count + sum(parts.encoder(model.encoder, piece) for piece in pieces)


def _cpc(model: Any, samples: int) -> int:
    from mynah.upstream.core.cpc_encoder import SHORTEST, WaveEncoder

    front = model.encoder
    if isinstance(front, WaveEncoder):
        convs = [conv for conv in front.convs if isinstance(conv, nn.Conv1d)]
        count, frames = parts.stack(convs, max(samples, SHORTEST))
    else:
        frames = front.num_frames(samples)
        count = parts.filters(front.fbank.filters_FM, front.fbank.num_frames(samples))
        count += sum(parts.linear(layer, frames) for layer in front.linears)
    return count + parts.recurrent(model.context, frames)


def _wav2vec(model: Any, samples: int) -> int:
    count, frames = parts.extractor(model.extractor, samples)
    return count + parts.aggregator(model.aggregator, frames)


def _vq_wav2vec(model: Any, samples: int) -> int:
    count, frames = parts.extractor(model.coder.extractor, samples)
    count += parts.choice(model.coder.quantizer, frames)
    return count + parts.aggregator(model.aggregator, frames)


def _code_bert(model: Any, samples: int) -> int:
    count, frames = parts.extractor(model.coder.extractor, samples)
    count += parts.choice(model.coder.quantizer, frames)
    words, limit = frames + 2, model.config.max_positions  # one before, one after
    pieces = [min(limit, words - start) for start in range(0, words, limit)]
    return count + sum(parts.encoder(model.encoder, piece) for piece in pieces)


def _vq_vae(model: Any, samples: int) -> int:
    bank = model.front.num_frames(samples)
    convs = [block.conv for block in model.encoder.blocks()]
    count, frames = parts.stack(convs, bank + bank % 2)
    count += parts.filters(model.front.filters_FM, bank) + parts.linear(model.narrow, frames)
    count += parts.bottleneck(model.bottleneck, frames)
    return count + 2 * parts.linear(model.expand, frames)  # the frame, and its code


def _clip(model: Any, samples: int) -> int:
    frames, mels = model.front.num_frames(samples), model.config.num_mels
    count = parts.filters(model.front.filters_FM, frames)
    return count + parts.audio_ntt(model.encoder, mels, max(frames, model.encoder.strides[-1]))
