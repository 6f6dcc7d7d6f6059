"""s3prl: its checkpoints as our models, and any upstream of its hub as a wrapped one.

``s3prl:<file>``
    A checkpoint that s3prl wrote, or one of another program in the form that s3prl converts it to,
    or one of a method's authors that is neither fairseq's nor Hugging Face's (APC, BYOL-A, CPC,
    DeLoRes, NPC, SpidR), of a family that we have, as our own class: batched, packed, trainable. It
    is read by :mod:`mynah.upstream.interop.unpickle`, which executes nothing.
``s3prl:<hub name>[,ckpt=<file>]``
    Any upstream of ``s3prl.hub`` (``fbank``, ``apc_local``, ``wav2vec2_custom`` ...), run by
    s3prl's own code: see :mod:`mynah.upstream.interop.s3prl_hub`.
"""

from __future__ import annotations

from pathlib import Path

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop import fairseq, families, unpickle
from mynah.upstream.interop.s3prl_hub import ensure_importable, plain, wrap

__all__ = ["convert", "ensure_importable", "load"]

# what s3prl makes of a fairseq checkpoint, and what its hub takes as the authors wrote it
_FAIRSEQ = ({"model_weight"}, {"model", "cfg"}, {"model", "args"})


def load(spec: str) -> Upstream:
    """Return what ``s3prl:<spec>`` names; see the top of this module.

    Raises:
        FileNotFoundError: no such checkpoint.
        LookupError: neither a file nor a name of s3prl's hub.
        ValueError: a checkpoint that cannot be read safely or does not fit, an unknown option, or
            an upstream without hidden states of one shape.
        OSError: a download failed.
    """
    name, *options = spec.split(",")
    if Path(name).is_file():
        if options:
            raise ValueError(f"s3prl:<file> takes no options, got {options[0]!r}")
        return convert(name)
    checkpoint: Path | None = None
    for option in options:
        key, _, value = option.partition("=")
        if key != "ckpt" or not value:
            raise ValueError(f"unknown option {option!r}: s3prl:{name} takes ckpt=<file>")
        checkpoint = Path(value)
        if not checkpoint.is_file():
            raise FileNotFoundError(f"no such checkpoint: {checkpoint}")
    return wrap(name, checkpoint=checkpoint)


def convert(path: str | Path) -> Upstream:
    """Return a checkpoint of s3prl as our own model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: of no family that we have, a setting that our model does not have, or weights
            that do not fit.
    """
    content = plain(unpickle.read(path))
    if any(form <= content.keys() for form in _FAIRSEQ):
        return fairseq.load(path)
    return families.from_s3prl(content, path)
