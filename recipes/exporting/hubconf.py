"""The entry through which torch.hub and s3prl find the upstream of this folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from torch import nn

dependencies = ["torch", "mynah"]


def customized_upstream(*args: Any, **options: Any) -> nn.Module:
    """Return the upstream; ``ckpt`` names another model folder than the one beside this file."""
    # by its path: torch.hub loads this file as no part of a package, s3prl as part of its own
    path = Path(__file__).resolve().with_name("expert.py")
    spec = importlib.util.spec_from_file_location("expert_of_mynah", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    expert: nn.Module = module.UpstreamExpert(*args, **options)
    return expert
