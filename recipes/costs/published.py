"""Published counts of parameters and multiply-accumulates, and how they come about.

SUPERB's profiler sums the same products as we do, but its numbers are larger or smaller where

* attention is torch's own function (fairseq's models, DeCoAR 2.0): the biases of queries, keys and
  values, their scaling, the mask and the softmax count too, 4 T D + 3 H T^2 in a layer;
* there is a recurrent layer: its hook adds half of what this layer has done *since the beginning*
  after each utterance, so that of 32 utterances the first counts 32 times. One frame is the size
  of the weights, the biases and 7 H (GRU) or 10 H (LSTM);
* s3prl's forward does what no hidden state needs: the prediction of the next frame, its quantiser.

:func:`as_published` repeats all three, so that a published total can be held against a model that
is built here with random weights. None of them enters a count of ours.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mynah.recipes.costs import parts
from mynah.recipes.costs.superb import BUCKETS, LENGTHS, macs_of

if TYPE_CHECKING:
    from torch import nn

    from mynah.upstream.core.contract import Upstream


@dataclass(frozen=True, kw_only=True)
class Known:
    """How a published model is built here, and what the published numbers count on top.

    Attributes:
        model: its name among the published rows.
        spec: family and variant, or a name of s3prl's hub.
        settings: of the published weights, where the variant's differ.
        without: our modules for pretraining that the published model does not have.
        attention: width, heads and layers of torch's own attention function.
        recurrent: our module that holds recurrent layers.
        heads: s3prl's forward runs them: products of one frame.
        note: what remains.
    """

    model: str
    spec: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    attention: tuple[int, int, int] | None = None
    recurrent: str | None = None
    heads: Callable[[Any], int] = lambda _model: 0
    note: str = ""


_BASE, _LARGE = (768, 12, 12), (1024, 16, 24)
_FEATURES = {"objective": False}
KNOWN = (
    Known(model="FBANK", spec="fbank/base"),
    Known(
        model="APC",
        spec="apc/base",
        recurrent="layers",
        heads=lambda m: parts.linear(m.predict, 1),
    ),
    Known(
        model="VQ-APC",
        spec="apc/vq",
        recurrent="layers",
        heads=lambda m: parts.linear(m.predict, 1) + _quantisers(m),
    ),
    Known(
        model="NPC",
        spec="npc/base",
        heads=lambda m: parts.linear(m.predict, 1) + _quantisers(m),
        note="our masked convolutions have no weights where the mask is, and no bias before a norm",
    ),
    Known(
        model="Mockingjay",
        spec="mockingjay/large",
        settings={"max_frames": 500},
        without=("head",),
    ),
    Known(model="TERA", spec="mockingjay/tera", without=("head",)),
    Known(
        model="DeCoAR 2.0",
        spec="s3prl:decoar2_local",
        attention=_BASE,
        note="s3prl's code, random weights",
    ),
    Known(model="modified CPC", spec="cpc/modified", settings=_FEATURES, recurrent="context"),
    Known(model="wav2vec", spec="wav2vec/base"),
    Known(model="vq-wav2vec", spec="vq_wav2vec/base", settings={"shared": False}),
    Known(model="wav2vec 2.0 Base", spec="wav2vec2/base", attention=_BASE),
    Known(model="wav2vec 2.0 Large", spec="wav2vec2/large", attention=_LARGE),
    Known(model="HuBERT Base", spec="hubert/base", settings={"clusters": 504}, attention=_BASE),
    Known(model="HuBERT Large", spec="hubert/large", settings={"clusters": 504}, attention=_LARGE),
    Known(model="WavLM Base", spec="hubert/wavlm", settings=_FEATURES, attention=_BASE),
    Known(model="WavLM Base+", spec="hubert/wavlm", settings=_FEATURES, attention=_BASE),
    Known(model="WavLM Large", spec="hubert/wavlm-large", settings=_FEATURES, attention=_LARGE),
    Known(model="DistilHuBERT", spec="distilhubert/base", attention=(768, 12, 2)),
)
UNBUILT = {
    "PASE+": "s3prl imports its code from another package (pase: SincNet, QRNN) and has none of its own",
}


@dataclass(frozen=True, kw_only=True)
class Count:
    """One model built here, held against what is published of it.

    Attributes:
        params: ours, without what the published model does not have.
        macs: ours, of all 32 utterances.
        as_published: what SUPERB's profiler would print, all and by bucket.
        how: see :class:`mynah.recipes.costs.superb.Macs`.
    """

    params: int
    macs: int
    as_published: dict[str, int]
    how: Literal["closed", "run", "fit"]


def build(known: Known) -> Upstream:
    """Return the model with random weights; those of families take no memory."""
    import torch

    from mynah import upstream
    from mynah.upstream.interop import s3prl

    kind, _, name = known.spec.partition(":")
    if name:
        with tempfile.TemporaryDirectory() as folder:
            empty = Path(folder) / "empty.pt"  # it keeps its random weights
            torch.save({"model": {}}, empty)
            return s3prl.load(f"{name},ckpt={empty}").freeze()
    family, _, variant = kind.partition("/")
    module = upstream.get(family)
    config = dataclasses.replace(module.CONFIGS[variant], **known.settings)
    with torch.device("meta"):
        model: Upstream = module.MODEL(config)
    return model


def as_published(known: Known) -> Count:
    """Build a model and count it both ways."""
    model = build(known)
    macs = macs_of(model)
    left_out = [getattr(model, name) for name in known.without]
    params = sum(p.numel() for p in model.parameters())
    params -= sum(p.numel() for module in left_out for p in module.parameters())
    frames = [model.num_frames(n) for n in LENGTHS]
    each = [known.heads(model) * t + _attention(known.attention, t) for t in frames]
    layers = _recurrent_layers(model, known.recurrent)
    honest = sum(parts.recurrent(layer, 1) for layer in layers)
    size = sum(_frame_of(layer) for layer in layers)
    out = {"all": macs.total + _extra(each, frames, honest, size)}
    step = len(LENGTHS) // len(BUCKETS)
    for i, name in enumerate(BUCKETS):
        place = slice(i * step, (i + 1) * step)
        out[name] = macs.buckets[name] + _extra(each[place], frames[place], honest, size)
    return Count(params=params, macs=macs.total, as_published=out, how=macs.how)


def _extra(each: Sequence[int], frames: Sequence[int], honest: int, size: int) -> int:
    """Return what the profiler's sum over some utterances has on top of ours.

    Args:
        each: of each utterance, what is counted on top.
        frames: T of each.
        honest: our count of the recurrent layers, of a frame.
        size: the profiler's.
    """
    done = itertools.accumulate(size * t for t in frames)
    return sum(each) + sum(d // 2 for d in done) - honest * sum(frames)


def _attention(shape: tuple[int, int, int] | None, frames: int) -> int:
    if shape is None:
        return 0
    width, heads, layers = shape
    return layers * (4 * frames * width + 3 * heads * frames**2)


def _recurrent_layers(model: Any, name: str | None) -> list[nn.GRU | nn.LSTM]:
    if name is None:
        return []
    from torch import nn

    found = getattr(model, name)
    layers = found if isinstance(found, nn.ModuleList) else [found]
    return [layer for layer in layers if isinstance(layer, nn.GRU | nn.LSTM)]


def _frame_of(layer: nn.GRU | nn.LSTM) -> int:
    """Return what the profiler takes for one frame of a recurrent layer: no product counts twice."""
    gates = 7 if layer.mode == "GRU" else 10
    return sum(p.numel() for p in layer.parameters()) + gates * layer.hidden_size


def _quantisers(model: Any) -> int:
    return sum(parts.bottleneck(quantizer, 1) for quantizer in model.quantizers)
