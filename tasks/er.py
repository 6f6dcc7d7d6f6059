"""ER, emotion recognition: which emotion an utterance carries, for speakers never heard.

Official corpus: IEMOCAP, four classes (neutral, happy with excited, angry, sad), 5531 utterances in
five sessions of two speakers. Cross-validation that leaves one group out: the group is the label
``session`` where every speaker is in one session only, else the speaker; with more than ten groups
they are joined to ten. Every utterance is tested once. Label: ``emotion``.

``superb`` repeats s3prl's recipe (``downstream/emotion``): dev is a random 20 % of the training
utterances of each fold (torch's permutation with seed 0, over utterances in the order of their
ids), so its speakers are those of train; 30 000 steps of batch 4 x 8; the score is the unweighted
mean of the folds' accuracies.

``fixed`` differs in: dev is whole groups, about a fifth of those that remain and next in order to
the tested one, so that what is chosen on dev is chosen for unheard speakers; ``accuracy`` is over
all utterances together, so that large and small groups count by their size (the mean of folds is
kept as ``fold_accuracy``) and ``uar``, the mean recall over classes, is reported, because the
classes are not alike in size; training stops when dev no longer improves, at most 10 000 steps of
batch 32; ties on dev are told apart by dev loss.

One learning rate is chosen for all folds, the best on average over their dev sets (of each fold's
best step); the step is chosen for each fold.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import ClassVar

import torch

from mynah.tasks.core.classification import Classification
from mynah.tasks.core.contract import Data, DataError, Protocol, Spec
from mynah.tasks.core.splits import (
    Parts,
    as_splits,
    check_classes,
    check_disjoint,
    first_few,
    labelled,
)
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.accuracy import accuracy, fold_accuracy, unweighted_recall
from mynah.tasks.metrics.metric import Metric

SPEC = Spec(
    name="er",
    problem="which emotion an utterance carries, leaving one group of speakers out",
    resolution="utterance",
    labels=("emotion", "session|speaker"),
    metric="accuracy",
    higher_is_better=True,
    split_unit="speaker",
    version=1,
    licence="IEMOCAP: on request, research only",
    citation="Busso et al. 2008, doi:10.1007/s10579-008-9076-6; SUPERB: arXiv:2105.01051",
)

MAX_FOLDS = 10
DEV_SHARE = 0.2


def groups_of(utterances: Sequence[Utterance]) -> tuple[dict[str, str], str]:
    """Return the group of each speaker, and what a group is (``session`` or ``speaker``).

    Raises:
        DataError: utterances without a speaker, or fewer than three groups.
    """
    missing = [u.id for u in utterances if not u.speaker]
    if missing:
        raise DataError(f"er needs the speaker of every utterance; without: {first_few(missing)}")
    sessions: dict[str, set[str | None]] = defaultdict(set)
    for u in utterances:
        sessions[str(u.speaker)].add(u.label("session"))
    one_each = all(len(s) == 1 and None not in s for s in sessions.values())
    name = "session" if one_each else "speaker"
    group = {k: str(next(iter(s))) if one_each else k for k, s in sessions.items()}
    distinct = sorted(set(group.values()))
    if len(distinct) > MAX_FOLDS:
        joined = {g: f"group{i % MAX_FOLDS}" for i, g in enumerate(distinct)}
        group = {speaker: joined[g] for speaker, g in group.items()}
    if len(set(group.values())) < 3:
        raise DataError(
            f"er leaves one {name} out for test and another for dev, and there are only "
            f"{first_few(distinct)}: three are needed"
        )
    return group, name


class EmotionRecognition(Classification):
    """Emotion recognition under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": Protocol(
            batch_size=32, accumulate=1, clip=1.0, steps=10_000, eval_every=50, patience=20
        ),
        "superb": Protocol(
            batch_size=4, accumulate=8, clip=1.0, steps=30_000, eval_every=1_000, ties="first"
        ),
    }  # fmt: skip

    def reference(self, utterance: Utterance) -> str:
        """Return the emotion."""
        return utterance.label("emotion") or ""

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Make the folds and check them; see :meth:`~mynah.tasks.core.contract.Task.load`."""
        kept = labelled(utterances, lambda u: u.label("emotion"), task="er", name="emotion")
        kept = sorted(kept, key=lambda u: u.id)
        group, name = groups_of(kept)
        ordered = sorted(set(group.values()))
        folds = {}
        classes: tuple[str, ...] = ()
        for at, left_out in enumerate(ordered):
            test = [u for u in kept if group[str(u.speaker)] == left_out]
            rest = [u for u in kept if group[str(u.speaker)] != left_out]
            if self.protocol_name == "superb":
                parts = self._random_dev(rest)
                check_disjoint(
                    {"train and dev": rest, "test": test}, lambda u: str(u.speaker),
                    unit_name="speaker",
                )  # fmt: skip
            else:
                parts = self._group_dev(rest, group, ordered[at + 1 :] + ordered[:at])
                check_disjoint(
                    {**parts, "test": test}, lambda u: str(u.speaker), unit_name="speaker"
                )
            parts["test"] = test
            found = check_classes(parts, self.reference)
            if classes and found != classes:
                odd = sorted(set(found) ^ set(classes))
                raise DataError(
                    f"leaving out {name} {left_out} changes the classes of train: {first_few(odd)}"
                )
            classes = found
            folds[left_out] = as_splits(parts)
        note = f"{len(folds)} folds, each leaves one {name} out"
        self.data = Data(folds=folds, classes=classes, notes=(note,))
        return self.data

    @staticmethod
    def _random_dev(rest: Sequence[Utterance]) -> Parts:
        generator = torch.Generator().manual_seed(0)
        shuffled = torch.randperm(len(rest), generator=generator).tolist()
        cut = int((1 - DEV_SHARE) * len(rest))
        return {
            "train": [rest[i] for i in shuffled[:cut]],
            "dev": [rest[i] for i in shuffled[cut:]],
        }

    @staticmethod
    def _group_dev(rest: Sequence[Utterance], group: dict[str, str], following: list[str]) -> Parts:
        sizes = Counter(group[str(u.speaker)] for u in rest)
        chosen: set[str] = set()
        taken = 0
        for name in following[:-1]:
            if chosen and taken + sizes[name] / 2 > DEV_SHARE * len(rest):
                break
            chosen.add(name)
            taken += sizes[name]
        return {
            "train": [u for u in rest if group[str(u.speaker)] not in chosen],
            "dev": [u for u in rest if group[str(u.speaker)] in chosen],
        }

    def metrics(self) -> tuple[Metric, ...]:
        """Return accuracy as the protocol means it, and what else is reported."""
        folds = list(self.loaded.folds)
        if self.protocol_name == "superb":
            return (fold_accuracy(folds),)
        return (
            accuracy(),
            fold_accuracy(folds, name="fold_accuracy"),
            unweighted_recall(self.loaded.classes),
        )

    def dev_metric(self) -> Metric:
        """Return plain accuracy: a dev set belongs to one fold."""
        return accuracy()


TASK = EmotionRecognition
