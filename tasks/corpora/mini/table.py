"""Is ``mini`` a benchmark? What filter-bank features find in it, task by task.

``python -m mynah.tasks.corpora.mini.table FOLDER`` prints the table that README.md shows. The
features are Kaldi's 80 log-mel energies with deltas, the classifiers linear, so the figures say how
much of each task lies open; they are not scores of the tasks themselves.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torchaudio.compliance.kaldi as kaldi
import torchaudio.functional as AF

from mynah.tasks.corpora.audio import read
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.mini.script import SILENCE
from mynah.tasks.corpora.utterance import Utterance

SHIFT = 0.01  # seconds from frame to frame
CONTEXT = 5  # frames on either side for the phone figure with context
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: what was asked, what chance gives, what was found (both in %), on how many."""

    task: str
    chance: float
    found: float
    n: int


def fbank(wav: np.ndarray) -> np.ndarray:
    """Return 80 log-mel energies with Δ and ΔΔ, (T, 240), of samples (S,) at 16 kHz."""
    x_TD = kaldi.fbank(torch.from_numpy(wav)[None] * 32768, num_mel_bins=80, dither=0.0)
    delta = AF.compute_deltas(x_TD.T)
    return torch.cat([x_TD.T, delta, AF.compute_deltas(delta)]).T.numpy()


def mean(x_TD: np.ndarray) -> np.ndarray:
    """Return the mean over time, (D,): what a SUPERB utterance head sees."""
    return np.asarray(x_TD.mean(0))


def mean_std(x_TD: np.ndarray) -> np.ndarray:
    """Return mean and standard deviation over time, (2D,)."""
    return np.concatenate([x_TD.mean(0), x_TD.std(0)])


def segments(x_TD: np.ndarray, count: int = 10) -> np.ndarray:
    """Return the means of ``count`` equal stretches of time, (count · D,)."""
    edges = np.linspace(0, len(x_TD), count + 1).astype(int)
    parts = [x_TD[a : max(b, a + 1)].mean(0) for a, b in pairwise(edges)]
    return np.concatenate(parts)


def linear(x: np.ndarray, y: Sequence[str], x_test: np.ndarray) -> list[str]:
    """Train a linear classifier and return its answers for other rows.

    Softmax regression with an L2 penalty on standardised features.

    Args:
        x: (N, D).
        y: N classes.
        x_test: (M, D).
    """
    from sklearn.linear_model import LogisticRegression

    centre, scale = x.mean(0), x.std(0) + 1e-5
    # Many rows (frames) need few iterations: 60 are within 0.3 % of 300.
    model = LogisticRegression(C=0.1, max_iter=60 if len(x) > 5000 else 500, tol=1e-3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        model.fit((x - centre) / scale, y)
    return [str(c) for c in model.predict((x_test - centre) / scale)]


def _accuracy(truth: Sequence[str], guess: Sequence[str]) -> float:
    return 100 * float(np.mean([a == b for a, b in zip(truth, guess, strict=True)]))


def _majority(train: Sequence[str], test: Sequence[str]) -> float:
    """Return the accuracy of always naming the commonest class of training, in %."""
    best = Counter(train).most_common(1)[0][0]
    return _accuracy(test, [best] * len(test))


class _Features:
    """The corpus' filter banks, computed once."""

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self.utterances = list(utterances)
        self._kept: dict[str, np.ndarray] = {}

    def frames(self, u: Utterance) -> np.ndarray:
        if u.id not in self._kept:
            self._kept[u.id] = fbank(read(u)).astype(np.float32)
        return self._kept[u.id]

    def rows(self, label: str) -> list[Utterance]:
        return [u for u in self.utterances if u.label(label)]

    def pool(
        self, utterances: Sequence[Utterance], how: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        return np.stack([how(self.frames(u)) for u in utterances])


def _classify(
    features: _Features,
    name: str,
    label: str,
    how: Callable[[np.ndarray], np.ndarray],
    *,
    split: str = "split",
    keep: Callable[[Utterance], bool] = lambda u: True,
) -> Row:
    rows = [u for u in features.rows(label) if u.label(split)]
    train = [u for u in rows if u.label(split) == "train"]
    test = [u for u in rows if u.label(split) == "test" and keep(u)]
    if not test:
        return Row(name, float("nan"), float("nan"), 0)
    y, truth = ([str(u.label(label)) for u in part] for part in (train, test))
    guess = linear(features.pool(train, how), y, features.pool(test, how))
    return Row(name, _majority(y, truth), _accuracy(truth, guess), len(test))


def _emotion(features: _Features) -> list[Row]:
    """Leave one group of speakers out, five groups; features and, for comparison, F0 and rate."""
    rows = features.rows("emotion")
    people = sorted({str(u.speaker) for u in rows})
    fold = np.array([people.index(str(u.speaker)) % FOLDS for u in rows])
    y = [str(u.label("emotion")) for u in rows]
    prosody = np.stack([_prosody(u) for u in rows])
    for speaker in people:  # relative to the speaker
        mine = np.array([u.speaker == speaker for u in rows])
        prosody[mine] = (prosody[mine] - prosody[mine].mean(0)) / (prosody[mine].std(0) + 1e-6)
    kinds = {
        "ER, mean": features.pool(rows, mean),
        "ER, mean + std": features.pool(rows, mean_std),
        "ER by F0 and rate, relative to the speaker": prosody,
    }
    found = []
    for name, x in kinds.items():
        truth, guess = [], []
        for k in range(FOLDS):
            train, test = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
            truth += [y[i] for i in test]
            guess += linear(x[train], [y[i] for i in train], x[test])
        found.append(Row(name, _majority(y, y), _accuracy(truth, guess), len(truth)))
    return found


def _prosody(u: Utterance) -> np.ndarray:
    """Return mean and spread of log F0 (librosa.yin, on the louder half) and phones per second."""
    import librosa

    wav = read(u)
    f0 = librosa.yin(wav, fmin=60, fmax=450, sr=16000, frame_length=1024, hop_length=160)
    power = librosa.feature.rms(y=wav, frame_length=1024, hop_length=160)[0]
    n = min(len(f0), len(power))
    tone = np.log(f0[:n][power[:n] >= np.median(power[:n])])
    spoken = [i for i in u.intervals["phones"] if i.symbol != SILENCE]
    rate = len(spoken) / (spoken[-1].end - spoken[0].start)
    low, middle, high = np.percentile(tone, [15, 50, 85])
    return np.array([middle, high - low, np.log(rate)])


def frame_phones(u: Utterance, frames: int) -> list[str]:
    """Return the phone at the middle of each of Kaldi's 25 ms frames."""
    tier = u.intervals["phones"]
    starts = np.array([i.start for i in tier])
    at = np.arange(frames) * SHIFT + 0.0125
    return [tier[k].symbol for k in np.searchsorted(starts, at, side="right") - 1]


def _phones(features: _Features, context: int, limit: int) -> Row:
    def gather(split: str) -> tuple[np.ndarray, list[str]]:
        xs, ys = [], []
        for u in features.rows("phones"):
            if u.split != split:
                continue
            x = features.frames(u)
            ys += frame_phones(u, len(x))
            if context:
                base = np.pad(x[:, :80], ((context, context), (0, 0)), mode="edge")
                x = np.concatenate([base[k : k + len(x)] for k in range(2 * context + 1)], axis=1)
            xs.append(x)
        return np.concatenate(xs), ys

    x, y = gather("train")
    if len(y) > limit:  # enough for a linear map
        chosen = np.random.RandomState(0).permutation(len(y))[:limit]
        x, y = x[chosen], [y[i] for i in chosen]
    x_test, truth = gather("test")
    guess = linear(x, y, x_test)
    name = f"PR, phone per frame, {2 * context + 1} frames" if context else "PR, phone per frame"
    return Row(name, _majority(y, truth), _accuracy(truth, guess), len(truth))


def _slots(features: _Features) -> Row:
    """Name the slot of each word that is in one, from the mean over the word."""

    def gather(split: str) -> tuple[np.ndarray, list[str]]:
        xs, ys = [], []
        for u in features.rows("slots"):
            if u.split != split:
                continue
            x = features.frames(u)
            tags = str(u.label("slots")).split()
            for word, tag in zip(u.intervals["words"], tags, strict=True):
                if tag == "O":
                    continue
                a, b = (
                    int(word.start / SHIFT),
                    max(int(word.end / SHIFT), int(word.start / SHIFT) + 3),
                )
                xs.append(mean_std(x[a:b]))
                ys.append(tag[2:])
        return np.stack(xs), ys

    x, y = gather("train")
    x_test, truth = gather("test")
    return Row(
        "SF, slot of a word",
        _majority(y, truth),
        _accuracy(truth, linear(x, y, x_test)),
        len(truth),
    )


def equal_error_rate(same: np.ndarray, different: np.ndarray) -> float:
    """Return the equal error rate in % of two sets of scores, higher meaning more alike."""
    thresholds = np.sort(np.concatenate([same, different]))
    misses = np.searchsorted(np.sort(same), thresholds, side="left") / len(same)
    alarms = 1 - np.searchsorted(np.sort(different), thresholds, side="left") / len(different)
    k = int(np.argmin(np.abs(misses - alarms)))
    return float(50 * (misses[k] + alarms[k]))


def _verification(features: _Features) -> list[Row]:
    """All pairs of recordings of held-out speakers from different sessions."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rows = features.rows("sid_split")
    train = [u for u in rows if u.split == "train"]
    test = [u for u in rows if u.split == "test"]
    x, x_test = features.pool(train, mean_std), features.pool(test, mean_std)
    centre, scale = x.mean(0), x.std(0) + 1e-5
    x, x_test = (x - centre) / scale, (x_test - centre) / scale
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto")
    lda.fit(x, [u.speaker for u in train])
    who = np.array([u.speaker for u in test])
    where = np.array([u.label("session") for u in test])
    a, b = np.triu_indices(len(test), 1)
    other_session = where[a] != where[b]
    a, b = a[other_session], b[other_session]
    found = []
    for name, e in (("cosine", x_test), ("LDA", lda.transform(x_test))):
        unit = e / np.linalg.norm(e, axis=1, keepdims=True)
        scores = np.sum(unit[a] * unit[b], axis=1)
        rate = equal_error_rate(scores[who[a] == who[b]], scores[who[a] != who[b]])
        found.append(Row(f"ASV, equal error rate, {name}", 50.0, rate, len(a)))
    return found


def table(corpus: Corpus, *, frames: int = 20000) -> list[Row]:
    """Return the figures of a prepared ``mini``.

    Args:
        corpus: as made by :func:`mynah.tasks.corpora.mini.build`.
        frames: most training frames of the phone figures.
    """
    features = _Features(corpus.utterances())
    rows = [
        _classify(features, "KS, mean", "keyword", mean),
        _classify(features, "KS, 10 segments", "keyword", segments),
        _classify(features, "SID, mean", "speaker", mean, split="sid_split"),
        _classify(features, "SID, mean + std", "speaker", mean_std, split="sid_split"),
        *_emotion(features),
        _phones(features, 0, frames),
        _phones(features, CONTEXT, frames),
        _classify(features, "IC, mean", "intent", mean),
        _classify(features, "IC, 10 segments", "intent", segments),
    ]
    rows += [
        _classify(
            features,
            f"IC, 10 segments, {phrasing} phrasings",
            "intent",
            segments,
            keep=lambda u, wanted=phrasing: u.label("phrasing") == wanted,  # type: ignore[misc]
        )
        for phrasing in ("seen", "unseen")
    ]
    return [*rows, _slots(features), *_verification(features)]


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown."""
    lines = ["| task | chance | FBANK | tested on |", "|---|---|---|---|"]
    lines += [f"| {r.task} | {r.chance:.1f} | {r.found:.1f} | {r.n} |" for r in rows]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of one or several corpora."""
    parser = argparse.ArgumentParser(description="What filter banks find in a mini corpus.")
    parser.add_argument("folder", type=Path, nargs="+", help="made by `mynah prepare mini FOLDER`")
    for folder in parser.parse_args(argv).folder:
        corpus = Corpus.open(folder)
        sys.stdout.write(f"{corpus.name} {corpus.version[:12]}\n\n{markdown(table(corpus))}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
