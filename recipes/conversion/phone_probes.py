"""Which phone each frame of a code says: fresh probes of frames, on speakers that they never heard.

Every frame of a code has the phone of the timed label that holds the frame's middle. Frames that no
label holds are left out, and so are pauses: they are much of read speech and told by loudness alone,
which would make every code look alike.

- ``linear``: a softmax regression of one frame;
- ``cnn``: two convolutions over the frame and four more on each side.

Both are trained on frames drawn at random, a fixed number of updates whatever the corpus' size.
A speaker vector is a code of one frame that stands for all of its utterance: all that it can tell is
which phone is frequent there, so its accuracy is near chance, and below where what it learnt of some
speakers misleads it about others. Utterances are dealt into folds by speaker as for the probes of
sentences; a phone that the training folds lack is an error wherever it is said.

Shape suffixes: B batch, N labelled frames, R rows of a table, T frames, W frames of a window, C width of
a code, K phones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.recipes.conversion.code_probes import Capacity, Probed, deal
from mynah.recipes.labelling.phones import phones_at
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.accuracy import frame_accuracy
from mynah.tasks.metrics.bootstrap import bootstrap

PAUSES = (".", "_", "#", "h#", "pau", "epi", "sil", "<sil>", "<p:>", "<eps>", "sp", "spn", "nsn")
"""Labels that are no phone in any case: pauses and noises of TIMIT, Kaldi, MFA, BAS and EmoDB."""
REACH = {"linear": 0, "cnn": 4}
"""Frames on each side that a probe hears."""
LINEAR_STEPS = 400
"""Updates of the linear probe: five times as many move its accuracy by 2 points at most, up or down."""
_BATCH = 512
_RATE = {"linear": 1e-2, "cnn": 5e-3}


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What became of frames.

    Attributes:
        utterances: that have a labelled frame.
        frames: that have a phone and are kept.
        outside: that no label holds.
        pauses: whose label is a pause or else no phone.
        thinned: that have a phone and are one too many of their utterance.
    """

    utterances: int
    frames: int
    outside: int
    pauses: int
    thinned: int

    @classmethod
    def of(cls, tallies: Sequence[Tally]) -> Tally:
        """Return the sum of some."""
        pages = [asdict(one) for one in tallies]
        return cls(**{key: sum(page[key] for page in pages) for key in cls.__annotations__})


@dataclass(frozen=True, kw_only=True)
class PhoneFrames:
    """Frames of an utterance that have a phone.

    Attributes:
        index_N: int64, which frames of the code, ascending.
        phones: the phone of each.
        tally: what became of all of its frames.
    """

    index_N: NDArray[np.int64]
    phones: tuple[str, ...]
    tally: Tally


def phone_frames(
    utterance: Utterance,
    tier: str,
    seconds_T: NDArray[np.float64],
    *,
    not_phones: Sequence[str] = (),
    most: int = 200,
) -> PhoneFrames:
    """Return which frames of a code have a phone, and which.

    Args:
        utterance: one without the tier has no labelled frame.
        tier: name of the timed labels.
        seconds_T: middle of each frame, in seconds from the utterance's start.
        not_phones: labels that are left out beside pauses; ``*``, ``?`` and ``[...]`` are wildcards.
        most: frames at most, evenly spread over those that have a phone.
    """
    phones: list[str] = []
    where_T = np.full(len(seconds_T), -1)
    if utterance.intervals.get(tier):
        phones, where_T = phones_at(utterance, tier, seconds_T)
    silent = {p for p in phones if p.lower() in PAUSES}
    silent |= {p for p in phones if any(fnmatchcase(p, pattern) for pattern in not_phones)}
    inside_N = np.flatnonzero(where_T >= 0)
    speaks_N = np.array([phones[where_T[t]] not in silent for t in inside_N], dtype=bool)
    spoken_N = inside_N[speaks_N]
    index_N = spoken_N
    if len(index_N) > most:
        index_N = spoken_N[np.arange(most) * len(spoken_N) // most]
    tally = Tally(
        utterances=int(len(index_N) > 0),
        frames=len(index_N),
        outside=len(where_T) - len(inside_N),
        pauses=len(inside_N) - len(spoken_N),
        thinned=len(spoken_N) - len(index_N),
    )
    names = tuple(phones[where_T[t]] for t in index_N)
    return PhoneFrames(index_N=index_N, phones=names, tally=tally)


def probe_phones(
    codes: Sequence[Tensor],
    frames: Sequence[PhoneFrames],
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
        codes: (T, C) of each utterance; a code of one frame stands for all frames.
        frames: which of each utterance have which phone.
        groups: of each utterance; a probe is scored on groups that it was not trained on.
        capacity: see above.
        unit: what a group is, for the interval.
        folds: at most; as many as there are groups, where those are fewer.
        steps: updates of the ``cnn``.
        seed: of folds, weights and batches.

    Returns:
        Accuracy over frames; chance is the share of the most frequent phone.

    Raises:
        ValueError: one phone or one group only, or a fold that has all labelled frames.
    """
    fold_U = deal(groups, folds=folds, seed=seed)
    said = [phone for one in frames for phone in one.phones]
    names = sorted(set(said))
    if len(names) < 2 or len(set(groups)) < 2:
        raise ValueError(
            f"a probe of phones needs two phones and two {unit}s, there are {len(names)} and "
            f"{len(set(groups))}"
        )
    number = {name: i for i, name in enumerate(names)}
    target_N = torch.tensor([number[phone] for phone in said])
    fold_N = np.repeat(fold_U, [len(one.phones) for one in frames])
    rows_RC, window_NW = windows(codes, [one.index_N for one in frames], reach=REACH[capacity])
    guess_N = torch.zeros_like(target_N)
    for fold in np.unique(fold_N):
        test_N = torch.from_numpy(fold_N == fold)
        if test_N.all():
            raise ValueError(
                f"a probe cannot learn phones: one fold of {unit}s has all labelled frames; give "
                f"labels of more {unit}s"
            )
        guess_N[test_N] = _guesses(
            rows_RC,
            window_NW[~test_N],
            target_N[~test_N],
            window_NW[test_N],
            capacity=capacity,
            classes=len(names),
            steps=LINEAR_STEPS if capacity == "linear" else steps,
            seed=seed,
        )
    heard = iter(guess_N.tolist())
    guessed = [" ".join(names[next(heard)] for _ in one.phones) for one in frames]
    kept = [u for u, one in enumerate(frames) if one.phones]
    found = bootstrap(
        frame_accuracy(),
        [" ".join(frames[u].phones) for u in kept],
        [guessed[u] for u in kept],
        [groups[u] for u in kept],
        unit=unit,
    )
    most = max(Counter(said).values()) / len(said)
    return Probed(capacity=capacity, accuracy=found, chance=most, classes=len(names))


def windows(
    codes: Sequence[Tensor], indices: Sequence[NDArray[np.int64]], *, reach: int
) -> tuple[Tensor, Tensor]:
    """Return the frames that windows need, once each, and the windows as numbers of them.

    Memory is that of the wanted frames and their neighbours, however long an utterance is.

    Args:
        codes: (T, C) of each utterance.
        indices: frames of each that are wanted; of a code of one frame every index is that frame.
        reach: frames on each side; beyond an end the last frame is repeated.

    Returns:
        Frames (R, C), float32, and for each wanted frame the rows of its window (N, W), int64 with
        W = 2 ``reach`` + 1.
    """
    rows, numbers, held = [], [], 0
    offset_W = np.arange(-reach, reach + 1)
    for code_TC, index_n in zip(codes, indices, strict=True):
        wanted_nW = (index_n[:, None] + offset_W).clip(0, len(code_TC) - 1)
        kept_R, number_nW = np.unique(wanted_nW, return_inverse=True)
        rows.append(code_TC[torch.from_numpy(kept_R)].float())
        numbers.append(torch.from_numpy(number_nW.reshape(wanted_nW.shape) + held))
        held += len(kept_R)
    return torch.cat(rows), torch.cat(numbers)


def _model(capacity: Capacity, dim: int, classes: int, *, width: int = 64) -> nn.Module:
    """Return a probe of windows (B, C, W), logits (B, K)."""
    if capacity == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(dim, classes))
    return nn.Sequential(
        nn.Conv1d(dim, width, 5),
        nn.ReLU(),
        nn.Conv1d(width, width, 5),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


def _guesses(
    rows_RC: Tensor,
    train_NW: Tensor,
    target_N: Tensor,
    test_NW: Tensor,
    *,
    capacity: Capacity,
    classes: int,
    steps: int,
    seed: int,
) -> Tensor:
    """Return the phone (N,) that a probe trained on some windows hears in others."""
    own_RC = rows_RC[train_NW.unique()]  # what is measured is of training speakers alone
    mean_C, scale_C = own_RC.mean(0), own_RC.std(0, unbiased=False).clamp(min=1e-5)
    del own_RC

    def inputs(window_BW: Tensor) -> Tensor:
        return ((rows_RC[window_BW] - mean_C) / scale_C).transpose(1, 2)

    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(capacity, rows_RC.shape[1], classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE[capacity])
    # falls to 0, or the linear probe would end wherever the last batches pulled it
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / max(1, steps))
    for _ in range(steps):
        chosen_B = torch.randint(len(train_NW), (_BATCH,), generator=draw)
        loss = F.cross_entropy(model(inputs(train_NW[chosen_B])), target_N[chosen_B])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return torch.cat([model(inputs(part)).argmax(1) for part in test_NW.split(4096)])
