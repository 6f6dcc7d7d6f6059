"""Audio in training order: every batch is a pure function of (seed, number of the batch).

Batches are numbered over the whole run and all processes: process ``r`` of ``W`` takes, in its
``i``-th turn, number ``i * W + r``. So one process that accumulates two batches sees exactly what
two processes see, nobody waits at an epoch's end, and resuming is an integer.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mynah.recipes.training.values import TrainConfig
from mynah.tasks.corpora import audio
from mynah.tasks.corpora.batching import duration_batches
from mynah.tasks.corpora.utterance import Utterance
from mynah.upstream.core.contract import Batch

AHEAD = 4  # batches that are decoded before they are needed
KEEP_EPOCHS = 16  # orders kept; an epoch of a tiny corpus may be a single batch


def mix(seed: int, *numbers: int) -> int:
    """Return a 63-bit seed that depends on every argument."""
    state = np.random.SeedSequence([seed, *numbers]).generate_state(1, np.uint64)
    return int(state[0]) >> 1


class AudioCache:
    """Decoded audio up to a budget, as int16 where that loses nothing, else as float32.

    What is in the cache never changes a sample, so neither the budget nor the order in which
    threads fill it can change a run.
    """

    def __init__(self, budget_bytes: int, sample_rate: int) -> None:
        self.left = budget_bytes
        self.sample_rate = sample_rate
        self._kept: dict[int, NDArray[np.int16] | NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def read(self, index: int, utterance: Utterance) -> NDArray[np.float32]:
        """Return the samples (S,) of an utterance, from memory if they are there.

        Raises:
            BadAudioError: the file cannot be decoded.
        """
        kept = self._kept.get(index)
        if kept is not None:
            if kept.dtype == np.int16:
                return kept.astype(np.float32) / np.float32(32768)
            return kept.astype(np.float32, copy=False)
        wav_S = audio.read(utterance, self.sample_rate)
        scaled_S = wav_S * np.float32(32768)
        small: NDArray[np.int16] | NDArray[np.float32] = wav_S
        if scaled_S.min() >= -32768 and scaled_S.max() <= 32767:
            short_S = scaled_S.astype(np.int16)
            if np.array_equal(short_S, scaled_S):
                small = short_S
        with self._lock:
            if index not in self._kept and small.nbytes <= self.left:
                self._kept[index] = small
                self.left -= small.nbytes
        return wav_S


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A batch of the run.

    Attributes:
        number: of the batch, over all epochs and processes.
        epoch: from which it comes.
        batch: waveforms (CPU) and their generator.
        seed: for torch's global generator (dropout) while the batch is processed.
    """

    number: int
    epoch: int
    batch: Batch
    seed: int


class AudioStream:
    """Numbered training batches of a list of utterances.

    Attributes:
        pin: lay batches in page-locked memory, from which a GPU copies while the CPU goes on.

    Args:
        utterances: what to train on.
        config: batch and crop seconds, seed, cache.
        sample_rate: Hz that the model hears.
        labels: returns the pseudo-labels (T,) of an utterance's stretch, given its id, first sample
            and number of samples; None for methods without.
        grid: crops start at multiples of so many samples, where labels want that.
        speakers: every speaker of the run, where batches are to say who speaks.
        least: fewest utterances of a batch.

    Raises:
        ValueError: no utterances, or one of another speaker than those.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        config: TrainConfig,
        *,
        sample_rate: int,
        labels: Callable[[str, int, int], torch.Tensor] | None = None,
        grid: int = 1,
        speakers: Sequence[str] | None = None,
        least: int = 1,
    ) -> None:
        if not utterances:
            raise ValueError("there is no audio to train on")
        self.utterances = list(utterances)
        self.config = config
        self.sample_rate = sample_rate
        self.labels = labels
        self.grid = grid
        self.least = least
        self._who: list[int] | None = None
        if speakers is not None:
            index = {name: i for i, name in enumerate(speakers)}
            strange = [u.id for u in utterances if u.speaker not in index]
            if strange:
                raise ValueError(f"utterances of no known speaker: {', '.join(strange[:3])}")
            self._who = [index[str(u.speaker)] for u in utterances]
        self.pin = False
        self.crop = max(1, int(config.crop_seconds * sample_rate))
        self.durations = [min(u.duration, config.crop_seconds) for u in utterances]
        self.cache = AudioCache(config.cache_mb * 2**20, sample_rate)
        self._epochs: dict[int, list[list[int]]] = {}
        self._starts = [0]  # number of the first batch of each epoch
        self._lock = threading.Lock()

    def seek(self, epoch: int, start: int) -> None:
        """Begin at an epoch whose first batch has this number, so that earlier ones cost nothing."""
        with self._lock:
            self._starts = [-1] * epoch + [start]

    def locate(self, number: int) -> tuple[int, int]:
        """Return the epoch of a batch and the number of that epoch's first batch."""
        with self._lock:
            while True:
                epoch = len(self._starts) - 1
                end = self._starts[-1] + len(self._order(epoch))
                if number < end:
                    break
                self._starts.append(end)
            while self._starts[epoch] > number:
                epoch -= 1
            return epoch, self._starts[epoch]

    def _order(self, epoch: int) -> list[list[int]]:
        if epoch not in self._epochs:
            self._epochs[epoch] = duration_batches(
                self.durations,
                self.config.batch_seconds,
                seed=self.config.seed,
                epoch=epoch,
                least=self.least,
            )
            for old in [e for e in self._epochs if e < epoch - KEEP_EPOCHS]:
                del self._epochs[old]
        return self._epochs[epoch]

    def load(self, number: int) -> Loaded:
        """Return one batch: read, crop, lay side by side.

        Raises:
            BadAudioError: a file cannot be decoded.
        """
        epoch, start = self.locate(number)
        with self._lock:
            members = self._order(epoch)[number - start]
        generator = torch.Generator().manual_seed(mix(self.config.seed, number, 0))
        whole = [self.cache.read(i, self.utterances[i]) for i in members]
        stretches = self._stretches([len(wav_S) for wav_S in whole], generator)
        wavs = [
            wav_S[first : first + length]
            for wav_S, (first, length) in zip(whole, stretches, strict=True)
        ]
        ids = tuple(self.utterances[i].id for i in members)
        labels = None
        if self.labels is not None:
            labels = tuple(
                self.labels(name, *stretch) for name, stretch in zip(ids, stretches, strict=True)
            )
        wav_BS = torch.zeros(len(wavs), max(map(len, wavs)))
        for row, wav_S in enumerate(wavs):
            wav_BS[row, : len(wav_S)] = torch.from_numpy(wav_S)
        batch = Batch(
            wav_BS=wav_BS.pin_memory() if self.pin else wav_BS,
            lengths_B=torch.tensor([len(wav_S) for wav_S in wavs], dtype=torch.int64),
            ids=ids,
            generator=generator,
            labels=labels,
            speakers_B=None
            if self._who is None
            else torch.tensor([self._who[i] for i in members], dtype=torch.int64),
        )
        return Loaded(
            number=number, epoch=epoch, batch=batch, seed=mix(self.config.seed, number, 1)
        )

    def _stretches(self, sizes: Sequence[int], generator: torch.Generator) -> list[tuple[int, int]]:
        """Return first sample and length of the crop of each utterance."""
        lengths = [min(size, self.crop) for size in sizes]
        shortest = min(lengths)
        if 1.0 - shortest * len(lengths) / sum(lengths) <= self.config.equalise:
            lengths = [shortest] * len(lengths)
        found = []
        for size, length in zip(sizes, lengths, strict=True):
            places = 1 + (size - length) // self.grid
            first = int(torch.randint(places, (), generator=generator)) if size > length else 0
            found.append((first * self.grid, length))
        return found

    @contextmanager
    def turns(self, first: int, count: int, *, stride: int = 1) -> Iterator[Iterator[Loaded]]:
        """Give batches ``first, first + stride, ...`` (``count`` of them), decoding ahead.

        Threads decode the next few; leaving the context drops what was not used.
        """
        numbers = range(first, first + count * stride, stride)
        if not self.config.workers:
            yield map(self.load, numbers)
            return
        pool = ThreadPoolExecutor(self.config.workers, thread_name_prefix="decode")
        try:
            yield self._ahead(pool, numbers)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _ahead(self, pool: ThreadPoolExecutor, numbers: range) -> Iterator[Loaded]:
        waiting: deque[Future[Loaded]] = deque()
        coming = iter(numbers)
        depth = max(AHEAD, 2 * self.config.workers)
        for _ in numbers:
            while len(waiting) < depth and (number := next(coming, None)) is not None:
                waiting.append(pool.submit(self.load, number))
            yield waiting.popleft().result()
