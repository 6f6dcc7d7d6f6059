"""Upstreams as plain functions of one waveform, for programs that record what is computed.

A frozen upstream hears ragged batches: lists, packed weights, blocks whose number depends on the
length. No exporter can follow that. :func:`plain` returns the same function of one utterance, made
of the upstream's own trainable layers and of :mod:`mynah.recipes.exporting.signal`; what comes out
is held against the upstream itself by :mod:`mynah.recipes.exporting.compare`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mynah.recipes.exporting import attention_forms, other_forms
from mynah.recipes.exporting.form import Plain
from mynah.upstream.apc import Apc
from mynah.upstream.autoencoder import Autoencoder
from mynah.upstream.core.clips import ClipUpstream
from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.frames import FrameTransformer
from mynah.upstream.cpc import Cpc
from mynah.upstream.distilhubert import Distilhubert
from mynah.upstream.fbank import Fbank
from mynah.upstream.mockingjay import Mockingjay
from mynah.upstream.npc import Npc
from mynah.upstream.wav2vec import Wav2Vec

DECIDES = ("code_bert", "vq_vae", "vq_wav2vec")
ANYWAY = "--as s3prl takes every family, for it runs mynah itself"

# looked through in this order: a special case before what it is a case of
BUILDERS: dict[type[Any], Callable[[Any], Plain]] = {
    Distilhubert: attention_forms.PlainDistilled,
    Autoencoder: attention_forms.PlainEncoded,
    FrameTransformer: attention_forms.PlainTransformer,
    Mockingjay: attention_forms.PlainMockingjay,
    Apc: other_forms.PlainApc,
    Cpc: other_forms.PlainCpc,
    Wav2Vec: other_forms.PlainWav2Vec,
    Fbank: other_forms.PlainFbank,
    Npc: other_forms.PlainNpc,
    ClipUpstream: other_forms.PlainClips,
}


def plain(model: Upstream) -> Plain:
    """Return an upstream as a plain function; it shares the weights.

    Raises:
        ValueError: a family or setting that is none; the message says why.
    """
    if model.name in DECIDES:
        raise ValueError(
            f"{model.name} cannot be exported as a graph: its states are vectors of codes, and a "
            "code is a decision (the nearest, the largest); another runtime's rounding tips some, "
            f"and such a frame is then another one altogether. {ANYWAY}"
        )
    if isinstance(model, FrameTransformer | Mockingjay) and model.encoder.config.window:
        raise ValueError(
            f"this {model.name} cannot be exported as a graph: its attention is truncated "
            f"(window={model.encoder.config.window}) and goes through blocks of queries, as many as "
            f"the utterance needs; a graph would keep the number of one example. {ANYWAY}"
        )
    for kind, build in BUILDERS.items():
        if isinstance(model, kind):
            made = build(model).eval().requires_grad_(False)
            least = range(made.shortest, made.shortest + 4 * model.stride)
            made.two = max(
                getattr(made, "two", 0), next(n for n in least if model.num_frames(n) > 1)
            )
            return made
    raise ValueError(
        f"{model.name} cannot be exported as a graph: there is no plain form of it in "
        f"mynah.recipes.exporting.plain. {ANYWAY}"
    )
