"""The script that makes the golden losses, as a module."""

import importlib.util
from pathlib import Path
from types import ModuleType


def load_make() -> ModuleType:
    path = Path(__file__).parents[1] / "golden" / "make.py"
    spec = importlib.util.spec_from_file_location("golden_make", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
