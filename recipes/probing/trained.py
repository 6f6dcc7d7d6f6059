"""A trained head as a file: weights, and all that is needed to use it on any audio.

One safetensors file per fold beside the result; its metadata is JSON. Reading it executes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from mynah.downstream.core.featurizer import Probe
    from mynah.recipes.probing.job import Job
    from mynah.tasks.core.contract import Task

SUFFIX = ".head.safetensors"
_KEY = "mynah_head"


class HeadCard(BaseModel):
    """What a file says of its head.

    Attributes:
        task: name of the task.
        task_version: its version.
        protocol: ``fixed`` or ``superb``.
        heads: ``protocol`` or ``small``.
        spec: upstream that it was trained on, as it was given.
        fingerprint: sha256 of that upstream.
        dim: width of its features.
        layers: number of its hidden states.
        stride: its samples between frames.
        sample_rate: Hz.
        layer: the one layer used, None for the weighted sum.
        layer_norm: whether frames were layer-normed first.
        corpus: where it was trained.
        fold: of that corpus.
        seed: of its initial weights.
        state: of the task, to decode.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    task_version: int
    protocol: Literal["fixed", "superb"]
    heads: Literal["protocol", "small"]
    spec: str
    fingerprint: str
    dim: int
    layers: int
    stride: int
    sample_rate: int
    layer: int | None
    layer_norm: bool
    corpus: str
    fold: str
    seed: int
    state: dict[str, Any]


def save(job: Job, probe: Probe, seed: int, fold: str) -> Path:
    """Write a head beside its result; returns the path."""
    from safetensors.torch import save_file

    from mynah.files import replacing

    facts = job.task.facts
    card = HeadCard(
        task=job.task.SPEC.name,
        task_version=job.task.SPEC.version,
        protocol=job.settings.protocol,
        heads="small" if job.task.small else "protocol",
        spec=job.spec,
        fingerprint=job.upstream.fingerprint(),
        dim=facts.dim,
        layers=facts.layers,
        stride=facts.stride,
        sample_rate=facts.sample_rate,
        layer=job.settings.layer,
        layer_norm=job.settings.layer_norm,
        corpus=job.corpus,
        fold=fold,
        seed=seed,
        state=job.task.state(),
    )
    beside = job.path(seed)
    path = beside.with_name(f"{beside.stem}{f'-{fold}' if fold else ''}{SUFFIX}")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.contiguous() for name, value in probe.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: card.model_dump_json()})
    return path


def load(path: Path) -> tuple[HeadCard, Task, Probe]:
    """Read a head: its card, its task ready to decode, and the probe in eval mode.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a file, of another version of its task, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    from mynah import tasks
    from mynah.downstream.core.featurizer import Featurizer, Probe
    from mynah.tasks.core.contract import Facts

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; 'mynah probe' writes NAME{SUFFIX}")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if text is None:
            raise ValueError("it has no card")
        card = HeadCard.model_validate(json.loads(text))
    except (SafetensorError, ValidationError, ValueError) as error:
        raise ValueError(f"{path} is not a trained head of 'mynah probe': {error}") from error
    task: Task = tasks.get(card.task).TASK(card.protocol, heads=card.heads)
    if task.SPEC.version != card.task_version:
        raise ValueError(
            f"{path} is of version {card.task_version} of task {card.task}, this is version "
            f"{task.SPEC.version}: train it again"
        )
    task.restore(card.state)
    task.bind(
        Facts(dim=card.dim, layers=card.layers, stride=card.stride, sample_rate=card.sample_rate)
    )
    featurizer = Featurizer(card.layers, layer=card.layer, normalize=card.layer_norm)
    probe = Probe(featurizer, task.head(card.dim))
    try:
        probe.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the head of task {card.task}: {error}") from error
    return card, task, probe.eval()
