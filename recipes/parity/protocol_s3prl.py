"""s3prl's side of ``mynah check protocol``: its code, imported where it can be, and its loop.

Its ``Runner`` cannot be imported with today's torchaudio and without the packages that it logs and
uploads with; :func:`race` does with s3prl's featurizer, optimiser and heads what its ``train`` and
``evaluate`` do.

Shape suffixes: L layers, B batch, T frames, D width.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
import time
import types
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mynah.recipes.parity.metric_cases_text import levenshtein
from mynah.recipes.parity.protocol_data import Given
from mynah.recipes.parity.protocol_ours import Run
from mynah.upstream.interop import s3prl_hub
from mynah.upstream.store import Reader

if TYPE_CHECKING:
    from mynah.tasks.corpora.utterance import Utterance

Weights = Mapping[str, Tensor]
STAND_INS: Mapping[str, Mapping[str, Any]] = {
    "catalyst.data.sampler": {"DistributedSamplerWrapper": None},
    "editdistance": {"eval": levenshtein},
    "torchaudio.sox_effects": {"apply_effects_file": None},
}
"""Module -> names that s3prl's experts import; all but the distance are for reading corpora."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of a ``config.yaml`` of s3prl's, which its package does not hold.

    Attributes:
        batch: utterances of a training batch.
        accumulate: batches of an update.
        test_batch: utterances of a test batch.
        optimizer: of ``torch.optim``.
        clip: limit of the gradient's norm.
    """

    batch: int
    accumulate: int
    test_batch: int
    optimizer: str = "Adam"
    clip: float = 1.0


class Reference(ABC):
    """One task as s3prl trains and scores it.

    Attributes:
        what: what of s3prl is used, for the table.
        learnt: s3prl's name of each trained tensor -> ours; the weighted sum is not among them.
        comparable: whether its losses must be ours where batches are padded.
        module: what is trained, likewise.
    """

    what: str
    learnt: Mapping[str, str]
    comparable: bool = True
    module: nn.Module

    def start(self, weights: Weights) -> None:
        """Take our initial weights.

        Raises:
            RuntimeError: the heads have other weights than each other.
        """
        ours = {name.removeprefix("head.") for name in weights if name.startswith("head.")}
        if strange := sorted(ours ^ set(self.learnt.values())):
            raise RuntimeError(f"only one of the heads has the weights {', '.join(strange)}")
        own = {theirs: weights[f"head.{name}"] for theirs, name in self.learnt.items()}
        named = dict(self.module.named_parameters())
        if strange := sorted(own.keys() ^ named.keys()):
            raise RuntimeError(f"s3prl's head has other weights than expected: {strange}")
        self.module.load_state_dict(own, strict=False)  # its best score is a buffer

    @abstractmethod
    def loss(self, features: list[Tensor], batch: Sequence[Utterance]) -> Tensor:
        """Return the loss of a batch, given each utterance's weighted sum (T, D)."""

    @abstractmethod
    def answer(self, features: list[Tensor], batch: Sequence[Utterance]) -> None:
        """Answer utterances of test, and keep the answers."""

    @abstractmethod
    def scored(self) -> tuple[list[str], float]:
        """Return the predictions of test, a row each, and what s3prl's metric makes of them."""


class _Frozen(nn.Module):
    """An upstream that says what s3prl's featurizer asks when it is built."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self._stride = reader.stride
        self._shape = (1, reader.sample_rate // reader.stride, reader.dim)
        self._layers = reader.num_layers

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        return {"hidden_states": [torch.zeros(self._shape) for _ in range(self._layers)]}

    def get_downsample_rates(self, _name: str) -> int:
        return self._stride


class _Featurizer:
    """s3prl's featurizer over features that are there already.

    It cuts each utterance to its samples over the stride; it is told as many samples as make our
    number of frames.
    """

    def __init__(self, reader: Reader, weights: Weights) -> None:
        from s3prl.upstream.interfaces import Featurizer

        self.reader = reader
        with s3prl_hub.quietly():
            self.module = Featurizer(_Frozen(reader), "hidden_states", upstream_device="cpu")
        if reader.num_layers > 1:
            self.module.load_state_dict({"weights": weights["featurizer.weights"]})

    def __call__(self, batch: Sequence[Utterance]) -> list[Tensor]:
        """Return each utterance's weighted sum (T, D)."""
        ids = [u.id for u in batch]
        layers_LBTD = self.reader.padded(ids)
        samples = (self.reader.lengths(ids) * self.reader.stride).tolist()
        wavs = [torch.zeros(1).expand(count) for count in samples]
        mixed: list[Tensor] = self.module(wavs, {"hidden_states": list(layers_LBTD)})
        return mixed


def race(given: Given, recipe: Recipe, reference: Reference, weights: Weights) -> Run:
    """Train and answer test as s3prl's runner does.

    Args:
        given: data.
        recipe: s3prl's numbers of the task.
        reference: its head and loss, on which is trained.
        weights: our initial weights, by our names.

    Raises:
        ValueError: our protocol has another batch or adds up another number of them.
        RuntimeError: the heads have other weights than each other.
    """
    from s3prl.optimizers import get_optimizer

    protocol = given.protocol
    if (protocol.batch_size, protocol.accumulate) != (recipe.batch, recipe.accumulate):
        raise ValueError(
            f"our updates are of {protocol.batch_size} x {protocol.accumulate} utterances, "
            f"s3prl's of {recipe.batch} x {recipe.accumulate}"
        )
    featurizer = _Featurizer(given.reader, weights)
    reference.start(weights)
    models = [featurizer.module, reference.module]
    settings = {
        "name": "TorchOptim",
        "torch_optim_name": recipe.optimizer,
        "lr": protocol.learning_rates[0],
    }
    optimizer = get_optimizer(models, protocol.steps, settings)
    params = [p for model in models for p in model.parameters()]
    losses = []
    started = time.process_time()
    for update in given.batches:
        total = 0.0
        for batch in update:
            loss = reference.loss(featurizer(batch), batch) / recipe.accumulate
            loss.backward()
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(params, recipe.clip)
        if not math.isnan(norm):
            optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    trained = time.process_time()
    for model in models:
        model.eval()
    with torch.no_grad():
        for at in range(0, len(given.test), recipe.test_batch):
            batch = given.test[at : at + recipe.test_batch]
            reference.answer(featurizer(batch), batch)
    answered = time.process_time()
    predictions, value = reference.scored()
    return Run(
        losses=losses,
        predictions=predictions,
        value=value,
        train=trained - started,
        score=answered - trained,
    )


def downstream(name: str) -> Any:
    """Import and return the module ``s3prl.downstream.NAME``, with stand-ins for what is absent.

    Raises:
        ImportError: s3prl is not installed, or lacks something else.
    """
    s3prl_hub.ensure_importable()
    with s3prl_hub.quietly(), _stand_ins():
        return importlib.import_module(f"s3prl.downstream.{name}")


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Let the names of ``STAND_INS`` be imported inside, where they cannot be."""
    before: dict[str, types.ModuleType | None] = {}
    for name, members in STAND_INS.items():
        with contextlib.suppress(ImportError):
            if all(hasattr(importlib.import_module(name), member) for member in members):
                continue
        before[name] = sys.modules.get(name)
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__dict__.update(members)
    try:
        yield
    finally:
        for name, module in before.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module


@contextlib.contextmanager
def replaced(module: Any, **values: Any) -> Iterator[None]:
    """Give a module other values of these names inside."""
    before = {name: getattr(module, name) for name in values}
    module.__dict__.update(values)
    try:
        yield
    finally:
        module.__dict__.update(before)
