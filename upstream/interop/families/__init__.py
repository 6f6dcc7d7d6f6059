"""Readers of other people's checkpoints, one file per family: the file's name is the family's.

A file has any of four functions. Each returns None where the content is not its family's, and
raises ``ValueError`` where it is but does not fit (a setting that ours lacks, weights missing):

``s3prl(content, path)``
    A dictionary that a program like s3prl saved with ``torch.save``.
``fairseq(weights, model, task, path)``
    The weights of a fairseq-style checkpoint and its settings, see
    :mod:`mynah.upstream.interop.fairseq`.
``hf(settings, state, folder)``
    The contents of ``config.json``, the weights without the base model's prefix, and the folder.
``torchaudio(model, name)``
    A model of torchaudio and the name of its factory.

Files are asked in the order of their names.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mynah import registry
from mynah.upstream.core.contract import Upstream


def known(kind: str) -> list[str]:
    """Return the families that have a reader of one kind (``s3prl``, ``fairseq`` ...)."""
    return [name for name, _ in _readers(kind)]


def from_s3prl(content: Mapping[str, Any], path: str | Path) -> Upstream:
    """Return the model in a dictionary that s3prl saved.

    Raises:
        ValueError: no family takes it, or one does but it does not fit.
    """
    for name, read in _readers("s3prl"):
        model = _ask(name, read, path, content)
        if model is not None:
            return model
    raise ValueError(
        f"{path} holds {_keys(content)}, which no family reads; families that read checkpoints of "
        f"s3prl: {', '.join(known('s3prl'))}; others run as s3prl:<hub name>,ckpt={path}"
    )


def from_fairseq(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    task: Mapping[str, Any],
    path: str | Path,
) -> Upstream:
    """Return the model in a fairseq-style checkpoint.

    Args:
        weights: name -> tensor, without the prefix and head of a fine-tuned model.
        model: the model's settings.
        task: the task's settings.
        path: what error messages name.

    Raises:
        ValueError: no family takes it, or one does but it does not fit.
    """
    for name, read in _readers("fairseq"):
        found = _ask(name, read, path, weights, model, task)
        if found is not None:
            return found
    given = model.get("_name", model.get("arch"))
    raise ValueError(
        f"{path} holds a {given!r} with the weights {_keys(weights)}, which no family reads; "
        f"families that read fairseq-style checkpoints: {', '.join(known('fairseq'))}"
    )


def from_hf(
    settings: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path
) -> Upstream | None:
    """Return the model in a Hugging Face directory, None where no family takes it.

    Args:
        settings: contents of ``config.json``.
        state: name -> tensor, without the prefix of the base model.
        folder: the directory.

    Raises:
        ValueError: a family takes it but it does not fit.
    """
    for name, read in _readers("hf"):
        model = _ask(name, read, folder, settings, state)
        if model is not None:
            return model
    return None


def from_torchaudio(model: nn.Module, name: str) -> Upstream | None:
    """Return one of torchaudio's models as our own, None where no family takes it.

    Raises:
        ValueError: a family takes it but it does not fit.
    """
    for _, read in _readers("torchaudio"):
        found = read(model, name)
        if found is not None:
            return found
    return None


def _readers(kind: str) -> Iterator[tuple[str, Callable[..., Upstream | None]]]:
    for name in registry.names(__name__):
        read = getattr(importlib.import_module(f"{__name__}.{name}"), kind, None)
        if read is not None:
            yield name, read


def _ask(
    family: str,
    read: Callable[..., Upstream | None],
    where: str | Path,
    *content: Mapping[str, Any],
) -> Upstream | None:
    try:
        return read(*content, where)
    except KeyError as error:
        raise ValueError(f"{where} looks like {family} but has no {error}") from error


def _keys(content: Mapping[str, Any], most: int = 8) -> str:
    names = [str(key) for key in content]
    more = f" ... ({len(names)} in all)" if len(names) > most else ""
    return (", ".join(names[:most]) or "nothing") + more
