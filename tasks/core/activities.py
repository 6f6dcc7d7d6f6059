"""Activities of speakers: whose they are, how wrong they are, and how to make turns of them.

Shape suffixes: B batch, T frames, S speakers, N frames of several recordings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mynah.tasks.core.contract import Decoded, Rows, Split
from mynah.tasks.core.pit import pit_bce
from mynah.tasks.core.turns import Active, Grid, Setting, labels, smooth, to_hundredths, to_turns
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.diarization import errors
from mynah.tasks.metrics.mean import as_text
from mynah.tasks.metrics.rttm import Turn


class Activities(np.ndarray[Any, np.dtype[np.float32]]):
    """Activities (T, S) that know which head they are of: what dev chose for it holds on test."""

    head: str = ""


def mark(probe: nn.Module) -> str:
    """Return what tells a head from all others: a hash of its last weights, which every update moves."""
    digest = hashlib.sha256()
    for name, tensor in probe.state_dict().items():
        if "lstm" not in name:
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def marked(activity_TS: NDArray[np.float32], head: str) -> Activities:
    """Return activities (T, S) that know their head by its :func:`mark`."""
    own = activity_TS.view(Activities)
    own.head = head
    return own


def head_of(decoded: Sequence[Decoded]) -> str:
    """Return the mark of the head that said all this, empty where it is not known."""
    return getattr(decoded[0], "head", "") if len(decoded) else ""


def array(decoded: Decoded) -> NDArray[np.float32]:
    """Return activities (T, S).

    Raises:
        TypeError: text instead of activities.
    """
    if isinstance(decoded, str):
        raise TypeError(f"expected activities (T, S), got text {decoded[:40]!r}")
    return decoded


def targets(
    batch: Sequence[Utterance], lengths_B: Tensor, shape: Sequence[int], grid: Grid
) -> tuple[Tensor, Tensor]:
    """Return who talks in each frame of a batch, 0 or 1 (B, T, S), and its valid frames (B).

    Args:
        batch: recordings with their turns.
        lengths_B: frames that the upstream gave of each; labels may be fewer or more.
        shape: T and S.
        grid: of the frames.
    """
    target_BTS = torch.zeros(len(batch), *shape)
    valid = []
    for row, (u, length) in enumerate(zip(batch, lengths_B.tolist(), strict=True)):
        talks_TS = torch.from_numpy(labels(u, shape[1], grid))[:length]
        target_BTS[row, : len(talks_TS)] = talks_TS
        valid.append(len(talks_TS))
    return target_BTS, torch.tensor(valid)


def frame_error(activity_TS: NDArray[np.float32], talks_TS: NDArray[np.bool_]) -> float:
    """Return the share of wrong decisions, speakers in the order with the lowest cross-entropy.

    As s3prl has it, a chunk in which nobody speaks is all wrong.

    Args:
        activity_TS: between 0 and 1.
        talks_TS: who talks in truth.
    """
    if not talks_TS.any():
        return 1.0
    truth_TS = torch.from_numpy(talks_TS)
    logits_TS = torch.from_numpy(np.array(activity_TS)).double().logit(eps=1e-7)
    _, order = pit_bce(logits_TS[None, None], truth_TS[None], torch.tensor([len(talks_TS)]))
    wrong = (logits_TS > 0) != truth_TS[:, order[0, 0]]
    return float(wrong.double().mean())


def frame_rows(
    split: Split, activities: Sequence[NDArray[np.float32]], *, speakers: int, grid: Grid
) -> Rows:
    """Return a row for each chunk of a split, whose prediction is its :func:`frame_error`.

    Args:
        split: chunks.
        activities: (T, S) of each.
        speakers: S.
        grid: of the frames.
    """
    ids = [u.id for u in split.utterances]
    pairs = zip(split.utterances, activities, strict=True)
    return Rows(
        ids=ids,
        units=ids,
        unit="chunk",
        references=ids,
        predictions=[
            as_text(frame_error(one_TS, labels(u, speakers, grid))) for u, one_TS in pairs
        ],
    )


def best_setting(
    activities: Sequence[NDArray[np.float32]], talks: Sequence[Active], settings: Sequence[Setting]
) -> Setting:
    """Return the setting with the lowest diarization error, counted in frames.

    Counted in frames, since the exact error of every setting takes long; between equals the one
    nearest to a threshold of 0.5 and with the shortest filter is taken.

    Args:
        activities: (T, S) of each recording.
        talks: who talks in truth, likewise.
        settings: to choose from.
    """
    gap = max(setting.median for setting in settings)  # the filter must not see the next recording
    spaces = np.zeros((gap, activities[0].shape[1]))
    activity_NS = np.concatenate([x for one in activities for x in (one, spaces)])
    talks_NS = np.concatenate([x for one in talks for x in (one, spaces.astype(bool))])
    starts = np.cumsum([0, *(len(one) + gap for one in activities[:-1])])

    def rank(setting: Setting) -> tuple[float, float, int]:
        active_NS = smooth(activity_NS > setting.threshold, setting.median)
        wrong = _wrong_frames(active_NS, talks_NS, starts)
        return wrong, abs(setting.threshold - 0.5), setting.median

    return min(settings, key=rank)


def _wrong_frames(active_NS: Active, talks_NS: Active, starts: NDArray[np.int64]) -> float:
    """Return misses, false alarms and confusions of recordings that begin at ``starts``."""
    speakers = talks_NS.shape[1]
    together = np.zeros((speakers, speakers, len(starts)))
    for i in range(speakers):
        both_NS = active_NS & talks_NS[:, i, None]
        together[i] = np.add.reduceat(both_NS.astype(np.int64), starts, axis=0).T
    rows = np.arange(speakers)
    best = np.max([together[rows, p].sum(axis=0) for p in permutations(range(speakers))], axis=0)
    most_N = np.maximum(active_NS.sum(axis=1), talks_NS.sum(axis=1))
    return float(most_N.sum() - best.sum())


def lowest_setting(
    activities: Sequence[NDArray[np.float32]],
    truths: Sequence[Sequence[Turn]],
    settings: Sequence[Setting],
    grid: Grid,
) -> Setting:
    """Return the setting with the lowest exact error, times rounded to 0.01 s; of equals the first.

    Args:
        activities: (T, S) of each recording.
        truths: its true turns.
        settings: to choose from.
        grid: of the frames.
    """

    def wrong(setting: Setting) -> float:
        total = 0.0
        for truth, activity_TS in zip(truths, activities, strict=True):
            said = to_hundredths(to_turns(activity_TS, setting, grid))
            total += sum(errors(truth, said)[:3])
        return total

    return min(settings, key=wrong)
