"""What a code still says: fresh probes of two capacities, on groups that they never heard.

A converter should leave the words in its content code and the speaker in its speaker vector, and
nothing of the other. Probes are trained after the converter, never with it: a classifier that was
trained against can be fooled without anything having left the code.

- ``linear``: logistic regression on mean and standard deviation over time;
- ``cnn``: two convolutions, mean and standard deviation over time, a linear layer.

A speaker is told apart on sentences that the probe never heard, a sentence on speakers that it never
heard: utterances are dealt into folds by sentence or by speaker, and each is predicted once by a probe
that was trained on the other folds. What such a probe cannot read a larger one may: neither proves that
something is gone.

Shape suffixes: B batch, N utterances, T frames, C width of a code, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.tasks.metrics.accuracy import accuracy
from mynah.tasks.metrics.bootstrap import Interval, bootstrap

Capacity = Literal["linear", "cnn"]
CAPACITIES: tuple[Capacity, ...] = ("linear", "cnn")


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What a probe of one capacity read.

    Attributes:
        capacity: of the probe.
        accuracy: with its interval by the groups that were held out.
        chance: share of the most frequent class.
        classes: number K of classes.
    """

    capacity: Capacity
    accuracy: Interval
    chance: float
    classes: int


def probe_codes(
    codes: Sequence[Tensor],
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    capacity: Capacity,
    unit: str,
    folds: int = 5,
    steps: int = 200,
    seed: int = 0,
) -> Probed:
    """Train and score probes of one capacity.

    Args:
        codes: (T, C) of each utterance; a vector is a code of one frame.
        labels: what is to be told apart, of each utterance.
        groups: of each utterance; a probe is scored on groups that it was not trained on.
        capacity: see above.
        unit: what a group is, for the interval.
        folds: at most; as many as there are groups, where those are fewer.
        steps: updates of the ``cnn``.
        seed: of folds, weights and batches.

    Raises:
        ValueError: one class or one group only, or a class that one fold has alone.
    """
    names = sorted(set(labels))
    kinds = sorted(set(groups))
    if len(names) < 2 or len(kinds) < 2:
        raise ValueError(
            f"a probe needs two classes and two groups, there are {len(names)} and {len(kinds)}"
        )
    fold_N = deal(groups, folds=folds, seed=seed)
    target_N = np.array([names.index(label) for label in labels])
    guess_N = np.zeros(len(labels), dtype=np.int64)
    for fold in np.unique(fold_N):
        held_N = fold_N == fold
        lost = set(target_N[held_N]) - set(target_N[~held_N])
        if lost:
            raise ValueError(
                f"a probe cannot learn {names[min(lost)]!r}: one fold of {unit}s has all of it; "
                "give more data or fewer folds"
            )
        train = [i for i in range(len(codes)) if not held_N[i]]
        test = [i for i in range(len(codes)) if held_N[i]]
        guess = _linear if capacity == "linear" else _cnn
        guess_N[held_N] = guess(
            [codes[i] for i in train],
            target_N[~held_N],
            [codes[i] for i in test],
            classes=len(names),
            steps=steps,
            seed=seed,
        )
    found = bootstrap(
        accuracy(), list(labels), [names[g] for g in guess_N], list(groups), unit=unit
    )
    most = max(Counter(labels).values()) / len(labels)
    return Probed(capacity=capacity, accuracy=found, chance=most, classes=len(names))


def deal(groups: Sequence[str], *, folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold (N,) of each utterance: groups are dealt out in a random order, whole.

    Args:
        groups: of each utterance.
        folds: at most; as many as there are groups, where those are fewer.
        seed: of the order; the same groups and seed give the same folds.
    """
    kinds = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(kinds))
    fold_of = {kinds[g]: i % min(folds, len(kinds)) for i, g in enumerate(order)}
    return np.array([fold_of[group] for group in groups], dtype=np.int64)


def pooled(code_TC: Tensor) -> NDArray[np.float64]:
    """Return mean and standard deviation over time (2C,); of one frame the latter is 0."""
    code_TC = code_TC.double()
    return torch.cat([code_TC.mean(0), code_TC.std(0, unbiased=False)]).numpy()


def _linear(
    train: Sequence[Tensor],
    target_N: NDArray[np.int64],
    test: Sequence[Tensor],
    *,
    classes: int,
    steps: int,
    seed: int,
) -> NDArray[np.int64]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))
    model.fit(np.stack([pooled(code_TC) for code_TC in train]), target_N)
    guess_N: NDArray[np.int64] = model.predict(np.stack([pooled(code_TC) for code_TC in test]))
    return guess_N


class SmallCNN(nn.Module):
    """Two convolutions over time, mean and standard deviation, a linear layer."""

    def __init__(self, dim: int, classes: int, *, width: int = 64) -> None:
        super().__init__()
        self.first = nn.Conv1d(dim, width, 5, padding=2)
        self.second = nn.Conv1d(width, width, 5, padding=2)
        self.last = nn.Linear(2 * width, classes)

    def forward(self, code_BTC: Tensor, valid_BT: Tensor) -> Tensor:
        """Return logits (B, K) of codes whose padding is 0 in ``valid_BT``."""
        mask_B1T = valid_BT[:, None].to(code_BTC.dtype)
        hidden = self.first(code_BTC.transpose(1, 2)).relu() * mask_B1T
        hidden = self.second(hidden).relu() * mask_B1T
        count_B1 = mask_B1T.sum(-1)
        mean = hidden.sum(-1) / count_B1
        spread = ((hidden - mean[..., None]) * mask_B1T).square().sum(-1) / count_B1
        logits_BK: Tensor = self.last(torch.cat([mean, (spread + 1e-6).sqrt()], dim=1))
        return logits_BK


def _cnn(
    train: Sequence[Tensor],
    target_N: NDArray[np.int64],
    test: Sequence[Tensor],
    *,
    classes: int,
    steps: int,
    seed: int,
    batch: int = 32,
    crop: int = 128,
) -> NDArray[np.int64]:
    every = torch.cat([code_TC.float() for code_TC in train])
    mean_C, scale_C = every.mean(0), every.std(0, unbiased=False).clamp(min=1e-5)
    targets = torch.from_numpy(target_N)
    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SmallCNN(every.shape[1], classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def padded(codes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        rows = nn.utils.rnn.pad_sequence(
            [(code_TC.float() - mean_C) / scale_C for code_TC in codes], batch_first=True
        )
        lengths_B = torch.tensor([len(code_TC) for code_TC in codes])
        return rows, torch.arange(rows.shape[1]) < lengths_B[:, None]

    for _ in range(steps):
        chosen = torch.randint(len(train), (min(batch, len(train)),), generator=draw)
        crops = []
        for i in chosen:
            room = max(0, len(train[i]) - crop)
            first = int(torch.randint(room + 1, (), generator=draw))
            crops.append(train[i][first : first + crop])
        loss = F.cross_entropy(model(*padded(crops)), targets[chosen])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        guesses = [model(*padded([code_TC])).argmax(1) for code_TC in test]
    return torch.cat(guesses).numpy()
