"""Your own upstream from a Python file: ``python:<file.py>:<Class>``.

**This executes the file**, with all that your account may do: give it files that you trust. No
other kind of spec executes anything.

The class is one of:

* a subclass of :class:`~mynah.upstream.core.contract.Upstream`, whose ``__init__`` needs no
  argument: taken as it is;
* any ``torch.nn.Module`` whose ``__init__`` needs no argument, which maps waveforms of shape (1, S)
  to one tensor of shape (1, T, D), to a list of L of them, or to a dict that holds such a list as
  ``hidden_states`` (as s3prl's experts do), and has the attribute ``stride``
  (samples between frames; ``sample_rate`` too if it is not 16000). It is run one utterance at a
  time, so it is batch-invariant whatever it does with padding, and its frame counts are learnt by
  running it on silence.

An example of the second kind, complete::

    import torch


    class Energy(torch.nn.Module):
        stride = 160

        def forward(self, wav):
            frames = torch.nn.functional.pad(wav, (0, -wav.shape[1] % 160)).unfold(1, 160, 160)
            return frames.square().mean(dim=2, keepdim=True)

Saved as ``energy.py``, ``mynah check upstream python:energy.py:Energy`` holds it against the
contract and ``mynah probe python:energy.py:Energy ...`` scores it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from torch import nn

from mynah import registry
from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.single import SingleUtterance


class FromFile(Upstream):
    """Makes the code of a user's own upstream part of the identity of its features.

    Attributes:
        digest: sha256 of the file.
    """

    digest: ClassVar[str]

    def fingerprint(self) -> str:
        """Return a sha256 over family, config, every weight and the file's bytes."""
        return hashlib.sha256(f"{super().fingerprint()}|{self.digest}".encode()).hexdigest()


def load(spec: str) -> Upstream:
    """Return the upstream that ``<file.py>:<Class>`` names; executes the file.

    Raises:
        ValueError: not of this form, or the class does not fit.
        FileNotFoundError: no such file.
        LookupError: the file defines no such class.
    """
    name, colon, attribute = spec.rpartition(":")
    if not colon or not name or not attribute.isidentifier():
        raise ValueError(f"expected python:<file.py>:<Class>, got python:{spec}")
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    module = run_file(path)
    classes = [
        key
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, nn.Module)
    ]
    if attribute not in classes:
        raise LookupError(registry.unknown(f"torch module in {path}:", attribute, classes))
    kind = getattr(module, attribute)
    needed = [
        p.name
        for p in inspect.signature(kind).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        raise ValueError(
            f"{path}:{attribute} cannot be built without {', '.join(needed)}: give them defaults "
            "(a subclass of two lines does)"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if issubclass(kind, Upstream):
        ours: Upstream = type(attribute, (FromFile, kind), {"digest": digest})()
        return ours
    model = kind()
    if not isinstance(getattr(model, "stride", None), int):
        raise ValueError(
            f"{path}:{attribute} needs the attribute 'stride', the samples between two frames"
        )
    return SingleUtterance(
        model,
        name=f"python:{path.stem}:{attribute}",
        stride=model.stride,
        sample_rate=int(getattr(model, "sample_rate", 16000)),
        identity=digest,
    )


def run_file(path: Path) -> ModuleType:
    """Execute a Python file as a module of its own and return it."""
    name = f"_mynah_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
