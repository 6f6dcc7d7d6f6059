"""Exports that are a folder with an ``expert.py``: s3prl's, and the SUPERB challenge's.

Shape suffixes: S samples, L layers, T frames, D width.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mynah.files import write_text
from mynah.recipes.exporting import graphs
from mynah.recipes.exporting.form import Plain
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Upstream

HERE = Path(__file__).parent
EXPERT = "expert.py"
MODEL = "model"
OTHER = 24000  # samples of the utterance that stands beside another when an expert is tried


def write_s3prl(model: Upstream, folder: Path, source: Mapping[str, Any]) -> None:
    """Write model folder, ``expert.py``, ``hubconf.py`` and ``requirements.txt``."""
    modelfolder.save(model, folder / MODEL, extra={"source": dict(source)})
    _copy("s3prl_expert.py", folder / EXPERT)
    _copy("hubconf.py", folder / "hubconf.py")
    write_text(folder / "requirements.txt", f"torch\n{_mynah()}\n")


def write_challenge(function: Plain, folder: Path, facts: Mapping[str, str]) -> None:
    """Write ``model.pt``, ``expert.py`` and ``requirements.txt``."""
    target = graphs.TARGETS["torchscript"]
    target.write(function, folder / target.file, facts)
    _copy("challenge_expert.py", folder / EXPERT)
    write_text(folder / "requirements.txt", f"torch>={torch.__version__.partition('+')[0]}\n")


def read_expert(folder: Path) -> Callable[[Tensor], Tensor]:
    """Return what the expert of a folder that was just written makes of a waveform (1, S)."""
    name = f"mynah_exported_{abs(hash(folder))}"
    spec = importlib.util.spec_from_file_location(name, folder / EXPERT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    write, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
        with graphs.quietly():
            expert: nn.Module = module.UpstreamExpert().eval()
    finally:
        sys.dont_write_bytecode = write

    def heard(wav_1S: Tensor) -> Tensor:
        # beside another, mostly a longer one: its own frames come first, then zeros
        other_S = wav_1S[0].flip(0).repeat(-(-OTHER // wav_1S.shape[1]))[:OTHER]
        with torch.no_grad():
            frames = expert([wav_1S[0]])["hidden_states"][0].shape[1]
            states = expert([other_S, wav_1S[0]])["hidden_states"]
        return torch.cat([state_BTD[1:, :frames] for state_BTD in states])

    return heard


def _mynah() -> str:
    from mynah import __version__

    return f"mynah=={__version__}"


def _copy(name: str, path: Path) -> None:
    write_text(path, (HERE / name).read_text(encoding="utf-8"))
