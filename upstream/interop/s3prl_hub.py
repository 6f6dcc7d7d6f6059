"""Any upstream of s3prl's hub as a wrapped model, run by s3prl's own code.

One utterance at a time, so that neighbours cannot matter. Names that take no file download their
published weights into s3prl's cache. While s3prl builds a model, its calls of ``torch.load`` are
answered by :mod:`mynah.upstream.interop.unpickle`, which executes nothing.

s3prl 0.4.18 was written for older versions of torchaudio and Python: :func:`ensure_importable`
supplies the three names that it misses.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.metadata
import io
import logging
import os
import sys
import types
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mynah import registry
from mynah.files import sha256_of
from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop import unpickle
from mynah.upstream.interop.wrapped import Wrapped

logger = logging.getLogger(__name__)


def ensure_importable() -> None:
    """Supply what s3prl 0.4.18 misses in torchaudio >= 2.9 and Python >= 3.12; idempotent.

    ``torchaudio.set_audio_backend`` and ``torchaudio.sox_effects`` were removed, and so was the
    standard library's ``distutils``. None of the three is used by an upstream's forward.
    """
    import torchaudio

    if not hasattr(torchaudio, "set_audio_backend"):
        torchaudio.set_audio_backend = lambda *_args, **_options: None
    if not hasattr(torchaudio, "sox_effects"):
        effects = types.ModuleType("torchaudio.sox_effects")

        def apply_effects_tensor(*_args: Any, **_options: Any) -> None:
            raise NotImplementedError("torchaudio has no sox effects any more (removed in 2.9)")

        effects.__dict__["apply_effects_tensor"] = apply_effects_tensor
        sys.modules["torchaudio.sox_effects"] = effects
        torchaudio.sox_effects = effects
    try:
        importlib.import_module("distutils.util")
    except ImportError:
        package, util = types.ModuleType("distutils"), types.ModuleType("distutils.util")
        truths = {"y": 1, "yes": 1, "t": 1, "true": 1, "on": 1, "1": 1}
        util.__dict__["strtobool"] = lambda text: truths.get(str(text).lower(), 0)
        package.__dict__["util"] = util
        sys.modules.update({"distutils": package, "distutils.util": util})


def hub() -> types.ModuleType:
    """Import and return ``s3prl.hub`` (seconds)."""
    ensure_importable()
    with quietly():
        return importlib.import_module("s3prl.hub")


def hub_with(name: str) -> types.ModuleType:
    """Return ``s3prl.hub`` after making sure that it has an upstream of this name.

    Raises:
        FileNotFoundError: the name is that of a file, which is not there.
        LookupError: unknown name.
    """
    if "/" in name or Path(name).suffix:
        raise FileNotFoundError(f"no such checkpoint: {name}")
    module = hub()
    if name not in module.options():
        raise LookupError(registry.unknown("s3prl upstream", name, module.options()))
    return module


def wrap(name: str, *, checkpoint: Path | None = None) -> Upstream:
    """Return an upstream of s3prl's hub, run by s3prl one utterance at a time.

    Args:
        name: an entry of ``s3prl.hub``.
        checkpoint: the file it is built from, where it takes one.

    Raises:
        LookupError: unknown name.
        ValueError: a checkpoint that cannot be read safely, or no uniform hidden states.
        OSError: a download failed.
    """
    module = hub_with(name)
    if checkpoint is None and name.endswith(("_local", "_custom")):
        raise ValueError(f"s3prl:{name} needs a checkpoint: s3prl:{name},ckpt=<file>")
    arguments = {} if checkpoint is None else {"ckpt": str(checkpoint)}
    try:
        with reading_safely(), quietly():
            expert: nn.Module = getattr(module, name)(**arguments)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(
            f"s3prl:{name} downloads its published weights and could not ({error}); with a local "
            "file use the entry of the family that ends in _local or _custom and ,ckpt=<file>"
        ) from error
    stride = int(expert.get_downsample_rates("hidden_states"))  # type: ignore[operator]
    digest = sha256_of(checkpoint) if checkpoint else ""
    return Wrapped(
        expert.eval(),
        name=f"s3prl:{name}",
        stride=stride,
        identity=f"s3prl {importlib.metadata.version('s3prl')} {digest}".strip(),
        states=_states,
    )


def _states(module: nn.Module, wav_1S: Tensor) -> Sequence[Tensor]:
    with quietly():
        states: list[Tensor] = list(module([wav_1S[0]])["hidden_states"])
    shortest = min(state.shape[1] for state in states)  # its even-length padding shows in hooks
    return [state[:, :shortest] for state in states]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Send what s3prl prints to the log, and drop its warnings."""
    said = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        warnings.simplefilter("ignore")
        yield
    if said.getvalue():
        logger.debug("s3prl: %s", said.getvalue().strip())


@contextlib.contextmanager
def reading_safely() -> Iterator[None]:
    """Let every ``torch.load`` inside read plain values and tensors only."""
    original = torch.load
    name = "load"

    def safely(file: Any, *_args: Any, **_options: Any) -> Any:
        if not isinstance(file, str | os.PathLike):
            raise ValueError(f"a checkpoint is read from a file, got {type(file).__name__}")
        setattr(torch, name, original)  # which the restricted reader itself builds on
        try:
            return plain(unpickle.read(Path(file)))
        finally:
            setattr(torch, name, safely)

    setattr(torch, name, safely)
    try:
        yield
    finally:
        setattr(torch, name, original)


def plain(value: Any) -> Any:
    """Return a checkpoint's content without the objects whose classes were not imported.

    Tensors, scalars and containers stay; an ``argparse.Namespace`` becomes one again; anything
    else that is no config becomes None.
    """
    if isinstance(value, unpickle.Stub):
        if value.origin == "argparse.Namespace" and isinstance(value.state, dict):
            return argparse.Namespace(**{str(k): plain(v) for k, v in value.state.items()})
        return unpickle.plain(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value) if type(value) in (list, tuple) else None
    return value
