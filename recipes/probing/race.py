"""What both sides of ``mynah speed probe`` share: clips, their order, and the clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

RATE = 16_000
LEARNING_RATE, CLIP = 1e-4, 1.0


@dataclass(kw_only=True)
class Side:
    """One contestant.

    Attributes:
        name: who.
        extract: CPU seconds to get the features once (0 for s3prl, which gets them at each step).
        passes: CPU seconds of each training pass.
        score: CPU seconds to score the test clips once.
        losses: loss of each step.
        accuracy: on the test clips.
    """

    name: str
    extract: float = 0.0
    passes: list[float] = field(default_factory=list)
    score: float = 0.0
    losses: list[float] = field(default_factory=list)
    accuracy: float = 0.0

    def measured(self) -> float:
        """CPU seconds of everything that was run."""
        return self.extract + sum(self.passes) + self.score

    def projected(self, passes: int) -> float:
        """CPU seconds that so many passes would take, by the median of those that were run."""
        return self.extract + passes * statistics.median(self.passes) + self.score


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Labelled clips of one length.

    Attributes:
        train: waveforms (S,) to train on.
        train_labels: their classes.
        test: waveforms to score.
        test_labels: their classes.
        classes: number of classes.
    """

    train: list[np.ndarray]
    train_labels: list[int]
    test: list[np.ndarray]
    test_labels: list[int]
    classes: int

    def order(self, batch: int, passes: int, seed: int) -> list[list[list[int]]]:
        """Return the batches of each pass, as indices into ``train``."""
        import numpy as np

        rng = np.random.default_rng(seed)
        made = []
        for _ in range(passes):
            shuffled = rng.permutation(len(self.train)).tolist()
            made.append([shuffled[at : at + batch] for at in range(0, len(shuffled), batch)])
        return made


def clips_of(corpus: Path | None, *, train: int, test: int, seconds: float, seed: int) -> Clips:
    """Cut clips from a corpus, or make tones of ten pitches in noise.

    Args:
        corpus: prepared, with the label keyword or label; None makes tones.
        train: clips to train on.
        test: clips to score.
        seconds: length of each.
        seed: of the draw.

    Raises:
        ValueError: a corpus with too few labelled clips.
    """
    import numpy as np

    size = round(seconds * RATE)
    rng = np.random.default_rng(seed)
    count = train + test
    if corpus is None:
        labels = [i % 10 for i in range(count)]
        time_S = np.arange(size) / RATE
        wavs = []
        for label in labels:
            pitch = 120.0 * 1.25**label * rng.uniform(0.93, 1.07)
            wave = np.sin(2 * np.pi * pitch * time_S + rng.uniform(0, 6)) * rng.uniform(0.02, 0.2)
            wavs.append((wave + 0.05 * rng.standard_normal(size)).astype(np.float32))
    else:
        wavs, names = _cut(corpus, size, count, rng)
        index = {name: i for i, name in enumerate(sorted(set(names)))}
        labels = [index[name] for name in names]
    shuffled = rng.permutation(count).tolist()
    first, rest = shuffled[:train], shuffled[train:]
    return Clips(
        train=[wavs[i] for i in first],
        train_labels=[labels[i] for i in first],
        test=[wavs[i] for i in rest],
        test_labels=[labels[i] for i in rest],
        classes=max(labels) + 1,
    )


def _cut(
    folder: Path, size: int, count: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[str]]:
    """Return the middle of so many random labelled utterances that are long enough."""
    from mynah.tasks.corpora.audio import num_samples, read
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.tasks.ks import keyword

    fitting = [u for u in Corpus.open(folder).utterances() if keyword(u) and num_samples(u) >= size]
    if len(fitting) < count:
        raise ValueError(
            f"{folder} has {len(fitting)} utterances with a keyword of at least "
            f"{size / RATE:g} s, {count} are needed: give --clips, --test-clips or --seconds"
        )
    wavs, names = [], []
    for i in rng.permutation(len(fitting))[:count].tolist():
        wav = read(fitting[i])
        start = (len(wav) - size) // 2
        wavs.append(wav[start : start + size].copy())
        names.append(str(keyword(fitting[i])))
    return wavs, names


def timed(action: Callable[[], None]) -> float:
    """Return the CPU seconds that an action takes."""
    started = time.process_time()
    action()
    return time.process_time() - started


def chunks(labels: Sequence[int], size: int) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield the labels in batches, each with its first index."""
    for at in range(0, len(labels), size):
        yield at, labels[at : at + size]


def right_in(logits_BC: Tensor, labels: Sequence[int]) -> int:
    """Return how many rows have their label as likeliest class."""
    return sum(a == b for a, b in zip(logits_BC.argmax(1).tolist(), labels, strict=True))
