"""What both sides of ``mynah check protocol`` are given: a corpus, batches, features in memory.

Shape suffixes: B batch, L layers, T frames, D width, S samples.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mynah.tasks.corpora.utterance import Utterance
from mynah.upstream.store import Item, Reader
from mynah.upstream.store.codec import HALF_MAX
from mynah.upstream.store.stream import StreamReader

if TYPE_CHECKING:
    from mynah.tasks.core.contract import Protocol, Task
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.upstream.core.contract import Upstream

ROOM = 4 << 30  # bytes of features in memory, at most
CHUNK_SECONDS = 60.0  # of one forward
RATE = 16_000
SPEAKERS, TAKES = 12, 8
WORDS = {  # of different numbers of phones: a loss that forgets to divide by them is found out
    "tea": ("T", "IY1"),
    "moon": ("M", "UW1", "N"),
    "dart": ("D", "AA1", "R", "T"),
    "ceiling": ("S", "IY1", "L", "IH0", "NG"),
}
PHONES = tuple(sorted({phone for phones in WORDS.values() for phone in phones}))


def made_corpus(folder: Path, *, least: float, seed: int) -> Corpus:
    """Write made-up words: a tone for each phone, and a hum that is the speaker's.

    12 speakers, 8 utterances each, of different lengths; labels for KS, PR, SID and ASV.

    Args:
        folder: where to.
        least: seconds of the shortest utterance; the longest has 1.4 times as many.
        seed: of the draw.
    """
    import soundfile

    from mynah.tasks.corpora.corpus import write_corpus

    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    utterances = []
    for speaker in range(SPEAKERS):
        for take in range(TAKES):
            word = tuple(WORDS)[take % len(WORDS)]
            name, seconds = f"s{speaker:02d}-{word}-{take}", least * rng.uniform(1.01, 1.4)
            wav_S = _said(WORDS[word], 300.0 * 1.25**speaker, seconds, rng)
            path = folder / f"{name}.wav"
            soundfile.write(path, wav_S, RATE, subtype="PCM_16")
            utterances.append(
                Utterance(
                    id=name,
                    path=str(path),
                    start=0.0,
                    duration=len(wav_S) / RATE,
                    sample_rate=RATE,
                    speaker=f"s{speaker:02d}",
                    text=word,
                    labels={"keyword": word, "phones": " ".join(WORDS[word])},
                )
            )
    return write_corpus(folder, utterances, name="made up")


def _said(
    phones: Sequence[str], hum: float, seconds: float, rng: np.random.Generator
) -> np.ndarray:
    time_S = np.arange(round(seconds * RATE)) / RATE
    pitch = 150.0 * rng.uniform(0.97, 1.03)
    tones = [
        np.sin(2 * np.pi * pitch * 1.3 ** PHONES.index(phone) * part_S)
        for phone, part_S in zip(phones, np.array_split(time_S, len(phones)), strict=True)
    ]
    wav_S = np.concatenate(tones) + np.sin(2 * np.pi * hum * time_S)
    return 0.2 * rng.uniform(0.9, 1.0) * wav_S + 0.05 * rng.standard_normal(len(wav_S))


class Kept(Reader):
    """Frames in memory, rounded to float16 as the feature store does, and their time means.

    Args:
        upstream: frozen.
        items: the utterances of which lengths are known.
        ids: those of which there are features.
        dtype: of what is given out; float64 is given whatever is asked for.

    Raises:
        ValueError: more features than 4 GiB, or some that are not finite.
    """

    kind = "frames"

    def __init__(
        self,
        upstream: Upstream,
        items: Sequence[Item],
        ids: Sequence[str],
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        stream = StreamReader(upstream, items)
        self._dtype = dtype
        super().__init__(
            num_layers=stream.num_layers,
            dim=stream.dim,
            sample_rate=stream.sample_rate,
            stride=stream.stride,
        )
        names = [item.id for item in items]
        self._lengths = dict(zip(names, stream.lengths(names).tolist(), strict=True))
        size = 2 * sum(self._lengths[name] for name in ids) * stream.num_layers * stream.dim
        if size > ROOM:
            raise ValueError(
                f"the features of {len(ids)} utterances take {size / 2**30:.1f} GiB of memory, at "
                f"most {ROOM >> 30} are allowed: give fewer steps, or a smaller corpus or upstream"
            )
        self._frames: dict[str, Tensor] = {}
        self._means: dict[str, Tensor] = {}
        for chunk in self._chunks(ids):
            for name, frames_LTD in zip(chunk, stream.frames(chunk), strict=True):
                self._keep(name, frames_LTD)

    def _chunks(self, ids: Sequence[str]) -> Iterator[list[str]]:
        room = CHUNK_SECONDS * self.sample_rate / self.stride
        chunk: list[str] = []
        for name in sorted(ids, key=lambda name: self._lengths[name]):
            if chunk and (len(chunk) + 1) * self._lengths[name] > room:
                yield chunk
                chunk = []
            chunk.append(name)
        if chunk:
            yield chunk

    def _keep(self, name: str, frames_LTD: Tensor) -> None:
        if not bool(torch.isfinite(frames_LTD).all()):
            raise ValueError(f"the features of {name} are not finite")
        fits = float(frames_LTD.abs().max()) <= HALF_MAX
        kept_LTD = frames_LTD.half() if fits else frames_LTD
        self._frames[name] = kept_LTD
        self._means[name] = kept_LTD.to(self._dtype).mean(dim=1)

    def pooled(self, ids: Sequence[str]) -> Tensor:
        """Return each utterance's time mean of every layer, (B, L, D)."""
        return torch.stack([self._means[name] for name in ids])

    def frames(self, ids: Sequence[str]) -> list[Tensor]:
        """Return each utterance's frames, a list of (L, T, D)."""
        return [self._frames[name].to(self._dtype) for name in ids]

    def padded(
        self,
        ids: Sequence[str],
        *,
        dtype: torch.dtype = torch.float32,
        memory: Tensor | None = None,
    ) -> Tensor:
        """Return a batch of frames, (L, B, T, D), zeros after each utterance's end."""
        top = max(self._lengths[name] for name in ids)
        dtype = torch.float64 if self._dtype == torch.float64 else dtype
        batch_LBTD = self._room(len(ids), top, dtype, memory).zero_()
        for b, name in enumerate(ids):
            batch_LBTD[:, b, : self._lengths[name]] = self._frames[name]
        return batch_LBTD

    def lengths(self, ids: Sequence[str]) -> Tensor:
        """Return each utterance's number of frames, (B,) int64."""
        return torch.tensor([self._lengths[name] for name in ids], dtype=torch.int64)


@dataclass(frozen=True, kw_only=True)
class Given:
    """One task's data, the same for both sides.

    Attributes:
        task: loaded and bound, under ``superb``.
        protocol: its numbers, with the updates and the one learning rate that were asked for.
        batches: of each update the batches whose gradients are added up.
        reader: features of what the batches and test hold.
        corpus: its name.
        dtype: in which both sides compute.
    """

    task: Task
    protocol: Protocol
    batches: Sequence[Sequence[Sequence[Utterance]]]
    reader: Reader
    corpus: str
    dtype: torch.dtype

    @property
    def test(self) -> Sequence[Utterance]:
        """The utterances that are scored."""
        return next(iter(self.task.loaded.folds.values()))[2].utterances

    @property
    def is_padded(self) -> bool:
        """Whether a batch holds utterances of different lengths."""
        flat = itertools.chain.from_iterable(self.batches)
        return any(len(set(self.reader.lengths([u.id for u in b]).tolist())) > 1 for b in flat)


def give(
    task: Task, corpus: str, upstream: Upstream, *, steps: int, rate: float, dtype: torch.dtype
) -> Given:
    """Draw the batches that ``superb`` trains on and extract what they and test need, once.

    Args:
        task: loaded, under ``superb``.
        corpus: its name.
        upstream: frozen.
        steps: updates.
        rate: learning rate.
        dtype: in which both sides compute.

    Raises:
        DataError: nothing to train on, or an upstream that the task cannot take.
        ValueError: too many features, or some that are not finite.
    """
    from mynah.recipes.extract import items_of
    from mynah.recipes.probing.batches import Source
    from mynah.recipes.probing.stages import facts_of
    from mynah.recipes.probing.train import training_batches, usable
    from mynah.tasks.core.contract import DataError
    from mynah.tasks.core.splits import first_few

    task.bind(facts_of(upstream))
    protocol = dataclasses.replace(
        task.protocol, steps=steps, eval_every=steps, learning_rates=(rate,)
    )
    train, _, test = next(iter(task.loaded.folds.values()))
    known: Mapping[str, Utterance] = {
        u.id: u for u in (*(v for t in train.utterances for v in task.views(t)), *test.utterances)
    }
    items = items_of(list(known.values()), upstream.sample_rate)
    sizes = Source(StreamReader(upstream, items), pooled=False, heads=1)
    kept, skipped = usable(task, train, sizes)
    if not kept:
        why = first_few(f"{name}: {reason}" for name, reason in skipped.items())
        raise DataError(f"no training utterance is long enough: {why}")
    stream = training_batches(task, protocol, kept)
    batches = [list(itertools.islice(stream, protocol.accumulate)) for _ in range(steps)]
    wanted = {u.id for update in batches for batch in update for u in batch}
    wanted |= {u.id for u in test.utterances}
    ids = [name for name in known if name in wanted]
    reader = Kept(upstream, items, ids, dtype=dtype)
    return Given(
        task=task, protocol=protocol, batches=batches, reader=reader, corpus=corpus, dtype=dtype
    )
