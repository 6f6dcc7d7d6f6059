"""What the utterance-classification tasks share: head, loss, decoding, references.

Shape suffixes: K heads, B batch, C classes.
"""

from __future__ import annotations

import dataclasses
import random
from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.downstream.linear_mean import LinearMean
from mynah.tasks.core.contract import Task
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.accuracy import accuracy
from mynah.tasks.metrics.metric import Metric


def random_crops(utterance: Utterance, seconds: float, count: int) -> tuple[Utterance, ...]:
    """Return ``count`` crops at random starts, drawn from the utterance's id; ids get ``@1`` ....

    Crops that are enumerated can be extracted once; a crop at every access could not.
    """
    rng = random.Random(f"crops|{utterance.id}")
    room = utterance.duration - seconds
    starts = sorted(utterance.start + round(rng.uniform(0, room), 3) for _ in range(count))
    return tuple(
        dataclasses.replace(utterance, id=f"{utterance.id}@{i}", start=start, duration=seconds)
        for i, start in enumerate(starts, start=1)
    )


class Classification(Task):
    """One class per utterance; subclasses say what the label is and how the splits come about."""

    @abstractmethod
    def reference(self, utterance: Utterance) -> str:
        """Return the class."""

    def head(self, dim: int) -> nn.Module:
        """Return Linear D -> 256, mean over frames, Linear 256 -> C."""
        return LinearMean(dim, self.outputs)

    def views(self, utterance: Utterance) -> tuple[Utterance, ...]:
        """Return the utterance, or crops of it where it is longer than the protocol's."""
        limit = self.protocol.crop_seconds
        if limit is None or utterance.duration <= limit:
            return (utterance,)
        return random_crops(utterance, limit, self.protocol.crops)

    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return cross-entropies (K, B) of logits (K, B, C)."""
        index = {name: i for i, name in enumerate(self.loaded.classes)}
        target_B = torch.tensor([index[self.reference(u)] for u in batch], device=outputs.device)
        heads, size, _ = outputs.shape
        flat = F.cross_entropy(outputs.flatten(0, 1), target_B.repeat(heads), reduction="none")
        return flat.view(heads, size)

    def decode(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> list[str]:
        """Return the likeliest class of each row of (B, C)."""
        classes = self.loaded.classes
        return [classes[i] for i in outputs.argmax(dim=1).tolist()]

    def metrics(self) -> tuple[Metric, ...]:
        """Return accuracy."""
        return (accuracy(),)
