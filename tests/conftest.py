"""Shared by all tests: run from a bare clone, one thread, and where the real speech is."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

if importlib.util.find_spec("mynah") is None:  # a bare clone: map the folders as the wheel does
    home = ROOT / "recipes" / "_mynah"
    spec = importlib.util.spec_from_file_location(
        "mynah", home / "__init__.py", submodule_search_locations=[str(home), str(ROOT)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["mynah"] = package
    spec.loader.exec_module(package)


@pytest.fixture(scope="session")
def bfloat16_products() -> None:
    """Skip where the CPU has no instructions with which oneDNN could multiply bfloat16."""
    import torch

    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this CPU cannot multiply bfloat16 (no AVX-512 BW, VL and DQ)")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def real_speech() -> Path:
    """The folder of real speech sets named by MYNAH_REAL_SPEECH."""
    folder = Path(os.environ.get("MYNAH_REAL_SPEECH", ""))
    if not os.environ.get("MYNAH_REAL_SPEECH") or not folder.is_dir():
        pytest.skip("set MYNAH_REAL_SPEECH to a folder of real speech sets")
    return folder
