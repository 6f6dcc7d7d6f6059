"""What the utterance-classification tasks share: head, loss, decoding, references.

Shape suffixes: K heads, B batch, C classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.downstream.linear_mean import LinearMean
from mynah.tasks.core.contract import Presented, Task
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.accuracy import accuracy
from mynah.tasks.metrics.metric import Metric

LIKELIEST = 5  # answers that are shown


class Classification(Task):
    """One class per utterance; subclasses say what the label is and how the splits come about."""

    @abstractmethod
    def reference(self, utterance: Utterance) -> str:
        """Return the class."""

    def head(self, dim: int) -> nn.Module:
        """Return Linear D -> 256, mean over frames, Linear 256 -> C."""
        return LinearMean(dim, self.outputs)

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

    def questions(self) -> Mapping[str, Sequence[str]]:
        """Return what is asked and its answers, in the order of the head's outputs."""
        return {"class": self.loaded.classes}

    def predict(
        self, probe: nn.Module, features: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> list[Presented]:
        """Return the likeliest answer of each item with its probability, and the next few."""
        questions = self.questions()
        logits_BC = probe(features, lengths_B).double().cpu()
        parts = logits_BC.split([len(answers) for answers in questions.values()], dim=1)
        found: list[dict[str, dict[str, float]]] = [{} for _ in batch]
        for (name, answers), part_BC in zip(questions.items(), parts, strict=True):
            values_BN, places_BN = part_BC.softmax(dim=1).topk(min(LIKELIEST, len(answers)))
            for i, row in enumerate(zip(places_BN.tolist(), values_BN.tolist(), strict=True)):
                found[i][name] = {answers[k]: p for k, p in zip(*row, strict=True)}
        return [_shown(likeliest) for likeliest in found]

    def metrics(self) -> tuple[Metric, ...]:
        """Return accuracy."""
        return (accuracy(),)


def _shown(likeliest: Mapping[str, Mapping[str, float]]) -> Presented:
    """Return the first of the likeliest answers to each question, as text and as JSON."""
    best = {name: next(iter(answers.items())) for name, answers in likeliest.items()}
    one = len(best) == 1
    return Presented(
        text=" ".join(
            f"{answer} {p:.3f}" if one else f"{name}={answer} {p:.3f}"
            for name, (answer, p) in best.items()
        ),
        json={
            name: {"answer": answer, "probability": p, "likeliest": dict(likeliest[name])}
            for name, (answer, p) in best.items()
        },
    )
