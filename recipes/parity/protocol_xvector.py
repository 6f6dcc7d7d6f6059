"""ASV as s3prl does it: its ``Model``, ``AMSoftmaxLoss`` and ``EER``, put together as its expert does.

The expert itself needs the package ``sox`` and a GPU (``.cuda()``). Its mean and deviation of a
padded utterance take in one frame of padding, which ours leave out; so it is run in two ways:
padded, as s3prl does, and each utterance by itself, where there is no padding and both must agree.
Sizes and settings are those of s3prl's ``config.yaml`` (protocol notes 1.7).

Shape suffixes: B batch, T frames, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mynah.recipes.parity.protocol_s3prl import Reference, downstream

if TYPE_CHECKING:
    from mynah.tasks.asv import SpeakerVerification
    from mynah.tasks.core.contract import Task
    from mynah.tasks.corpora.utterance import Utterance

CONTEXT = 14  # frames that the time-delay layers take off
WIDTH, POOLED = 512, 1500
LEARNT = {
    "connector": "projector",
    **{f"model.framelevel_feature_extractor.module.{i}.kernel": f"frames.{i}.linear" for i in range(5)},
    "model.utterancelevel_feature_extractor.linear1": "first",
    "model.utterancelevel_feature_extractor.linear2": "second",
}  # fmt: skip


class Verification(Reference):
    """The parts of s3prl's expert of ASV.

    Args:
        task: loaded.
        dim: width D of the features.
        width: of every layer but one.
        pooled: of the last frame layer.
        alone: run each utterance of a training batch by itself.
    """

    def __init__(
        self, task: SpeakerVerification, dim: int, *, width: int, pooled: int, alone: bool
    ) -> None:
        parts = downstream("sv_voxceleb1.model")
        self.what = "Model, AMSoftmaxLoss, EER" + (", each utterance alone" if alone else "")
        self.comparable = alone
        self.learnt = {
            f"{theirs}.{part}": f"{ours}.{part}"
            for theirs, ours in LEARNT.items()
            for part in ("weight", "bias")
        } | {"objective.W": "amsoftmax.weight"}
        self._connector = nn.Linear(dim, width)
        self._model = parts.Model(
            input_dim=width,
            agg_dim=pooled,
            agg_module_name="SP",
            module_name="XVector",
            utterance_module_name="UtteranceExtractor",
            hparams={"agg_dim": pooled, "dropout_p": 0.0, "batch_norm": False},
        )
        self._speakers = {name: i for i, name in enumerate(task.loaded.classes)}
        self._objective = parts.AMSoftmaxLoss(width, len(self._speakers), s=30.0, m=0.4)
        named = {"connector": self._connector, "model": self._model, "objective": self._objective}
        self.module = nn.ModuleDict(named)
        self._alone = alone
        self._trials = task.trials["test"]
        self._embeddings: dict[str, Tensor] = {}

    def loss(self, features: list[Tensor], batch: Sequence[Utterance]) -> Tensor:
        """Return the additive-margin softmax loss."""
        groups = [[one] for one in features] if self._alone else [features]
        hidden_BD = torch.cat([self._model(*self._masked(group)) for group in groups])
        speakers_B = torch.LongTensor([self._speakers[str(u.speaker)] for u in batch])
        loss: Tensor = self._objective(hidden_BD, speakers_B)
        return loss

    def _masked(self, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return projected frames (B, T, D), and a mask (B, T - 14) that is low at padding."""
        valid = [torch.ones(len(one) - CONTEXT) for one in features]
        mask_BT = (1.0 - pad_sequence(valid, batch_first=True)) * -100000.0
        return self._connector(pad_sequence(features, batch_first=True)), mask_BT

    def answer(self, features: list[Tensor], batch: Sequence[Utterance]) -> None:
        """Keep the embeddings, of length 1."""
        found_BD = self._model.inference(*self._masked(features))
        for u, vector_D in zip(batch, nn.functional.normalize(found_BD, dim=-1), strict=True):
            self._embeddings[u.id] = vector_D.detach()

    def scored(self) -> tuple[list[str], float]:
        """Return the cosine of each trial and s3prl's EER."""
        import numpy as np

        cosine = nn.CosineSimilarity(dim=-1)
        scores = [
            float(cosine(self._embeddings[t.enrolment], self._embeddings[t.test]))
            for t in self._trials
        ]
        truth = np.array([int(t.target) for t in self._trials])
        rate, _ = downstream("sv_voxceleb1.utils").EER(truth, np.array(scores))
        return [repr(score) for score in scores], float(rate)


@contextlib.contextmanager
def speaker_verification(
    task: Task, dim: int, _folder: Path, *, alone: bool
) -> Iterator[Reference]:
    """Yield s3prl's parts for ASV, of the size that our head has."""
    from mynah.tasks.asv import SMALL, SpeakerVerification

    assert isinstance(task, SpeakerVerification)
    size: dict[str, Any] = SMALL if task.small else {"width": WIDTH, "pooled": POOLED}
    yield Verification(task, dim, alone=alone, **size)
