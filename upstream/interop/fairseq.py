"""fairseq-style checkpoints: ``fairseq:<file.pt>``.

A pickled dictionary with ``model`` (the weights) and ``cfg`` or, older, ``args`` (the settings),
or s3prl's converted form (``model_weight``, ``model_cfg``, ``task_cfg``), or WavLM's (``cfg`` with the
model's settings alone). It is read by
:mod:`mynah.upstream.interop.unpickle`, which executes nothing. Which models are known is decided by
:mod:`mynah.upstream.interop.families`; of a model fine-tuned with CTC the head is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop import families
from mynah.upstream.interop.unpickle import plain, read

FINE_TUNED = "w2v_encoder.w2v_model."
DROPPED = ("w2v_encoder.proj.",)


def load(path: str | Path) -> Upstream:
    """Return the model in a fairseq-style checkpoint.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a checkpoint that can be read without executing it, a model or setting that
            is not known, or weights that do not fit.
    """
    content = read(path)
    weights = content.get("model", content.get("model_weight"))
    if isinstance(weights, dict):
        weights = _flat(weights)
    if not isinstance(weights, dict) or not all(isinstance(t, Tensor) for t in weights.values()):
        raise ValueError(
            f"{path} is not a fairseq-style checkpoint: it needs 'model' (or 'model_weight'), a "
            f"dictionary of tensors; it has {', '.join(map(str, content)) or 'nothing'}"
        )
    model, task = _settings(content, path)
    state = {
        str(name).removeprefix(FINE_TUNED): tensor
        for name, tensor in weights.items()
        if not str(name).startswith(DROPPED)
    }
    return families.from_fairseq(state, model, task, path)


def _flat(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights with those of data2vec's teacher, a dictionary among them, laid out."""
    flat: dict[str, Any] = {}
    for name, value in weights.items():
        inner = value if isinstance(value, dict) else None
        flat.update(
            {name: value} if inner is None else {f"{name}.{k}": v for k, v in inner.items()}
        )
    return flat


def _settings(content: Mapping[str, Any], path: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the model's and the task's settings of a checkpoint of any age."""
    if content.get("model_cfg") is not None:
        model, task = plain(content["model_cfg"]), plain(content.get("task_cfg"))
    elif content.get("cfg") is not None:
        cfg = plain(content["cfg"])
        cfg = cfg if isinstance(cfg, dict) else {}
        model, task = cfg.get("model", cfg), cfg.get("task")
    elif content.get("args") is not None:
        model = task = plain(content["args"])
    else:
        raise ValueError(f"{path} has no settings: none of 'cfg', 'args' and 'model_cfg'")
    if not isinstance(model, dict):
        raise ValueError(f"{path}: the model's settings are not a mapping of names to values")
    inner = model.get("w2v_args")  # a fine-tuned model keeps its pretraining settings here
    if isinstance(inner, dict):
        model = inner["model"] if isinstance(inner.get("model"), dict) else inner
    return model, task if isinstance(task, dict) else {}
