"""What each converter makes of the same pairs, and what bounds it, as audio files.

Shape suffixes: S samples, T frames, C width of a code, V codes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from mynah.recipes.conversion.checks import Wave
    from mynah.recipes.conversion.contender import Contender
    from mynah.recipes.conversion.engine import Engine, Result
    from mynah.recipes.conversion.pairs import Pair
    from mynah.tasks.corpora.utterance import Utterance

RATE = 16000
UNCHANGED = "source, unchanged"
COPY = "source, copy-synthesis"
TARGET_COPY = "target, copy-synthesis"
TAKE = "target, another take"
ITSELF = "target, the parallel recording itself"
OTHER_COPY = "target, another utterance, copy-synthesis"
OTHER = "target, another utterance"
PLAIN = "autoencoder"
"""Method whose runs are a bound, not a contender: nothing takes the speaker out of its code."""

Kind = Literal["anchor", "method"]


@dataclass(frozen=True, kw_only=True)
class System:
    """What one row of the table is about.

    Attributes:
        name: of the row.
        kind: what bounds the others, or one of them.
        files: of each pair, None where there is none.
        identity: who made it.
        seconds: CPU seconds of each pair; empty where nothing was computed.
        codes: how often each content code was used; empty where codes are not discrete.
        itself: whether the files are what conversions are compared with, so that distances to it
            say nothing.
        said: of each pair, whose words and timing its file has; empty where they are the source's.
    """

    name: str
    kind: Kind
    files: Sequence[Path | None]
    identity: dict[str, Any] = field(default_factory=dict)
    seconds: Sequence[float] = ()
    codes: Counter[bytes] = field(default_factory=Counter)
    itself: bool = False
    said: Sequence[Utterance | None] = ()


class Recordings:
    """Utterances of a corpus as files of their own, each written once: 16-bit WAV of 16 kHz.

    Args:
        folder: for the files; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, Path] = {}

    def file(self, utterance: Utterance) -> Path:
        """Return the file of an utterance.

        Raises:
            BadAudioError: it cannot be read.
        """
        from mynah.tasks.corpora.audio import read

        if utterance.id not in self._files:
            path = self.folder / f"{len(self._files):05d}.wav"
            write(path, read(utterance, RATE), RATE)
            self._files[utterance.id] = path
        return self._files[utterance.id]


def write(path: Path, wav_S: Wave, sample_rate: int, *, comment: str = "") -> None:
    """Write samples as 16-bit WAV, lowered where they would clip."""
    import numpy as np
    import soundfile

    peak = max(1.0, float(np.abs(wav_S).max(initial=0.0)))
    with soundfile.SoundFile(path, "w", sample_rate, 1, subtype="PCM_16", format="WAV") as file:
        if comment:
            file.comment = comment
        file.write(wav_S / peak)


@contextmanager
def refusals(pair: Pair) -> Iterator[None]:
    """Name the pair where a converter refuses its recordings.

    Raises:
        BadDataError: it does.
    """
    from mynah.recipes.conversion.checks import RefusedError
    from mynah.recipes.errors import BadDataError

    try:
        yield
    except RefusedError as error:
        raise BadDataError(f"pair {pair.id}: {error}") from error


def convert(contender: Contender, pairs: Sequence[Pair], folder: Path, real: Recordings) -> System:
    """Convert every pair; the clock of a converter starts at its second conversion.

    Raises:
        BadAudioError, BadDataError: recordings that cannot be used.
    """
    from mynah.recipes.conversion.checks import read_recording
    from mynah.recipes.convert import COMMENT
    from mynah.recipes.progress import track

    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path | None] = []
    seconds: list[float] = []
    codes: Counter[bytes] = Counter()
    warm: set[int] = set()
    name = contender.name
    for number, pair in enumerate(track(pairs, name)):
        engine = contender.engine(pair)
        source = read_recording(real.file(pair.source), name=pair.source.id)
        references = [read_recording(real.file(u), name=u.id) for u in pair.references]
        more = [read_recording(real.file(u), name=u.id) for u in pair.own]

        def once() -> Result:
            return engine.convert(source, references, more=more)  # noqa: B023  called here

        with refusals(pair):
            if id(engine) not in warm:
                once()  # what a first call loads is nobody's real-time factor
                warm.add(id(engine))
            began = time.process_time()
            found = once()
        seconds.append(time.process_time() - began)
        path = folder / f"{number:05d}.wav"
        write(path, found.wav_S, found.sample_rate, comment=f"{COMMENT}, {name}")
        files.append(path)
        codes.update(code_ids(engine.converter, found.code_TC))
    plain = contender.identity.get("method") == PLAIN
    return System(
        name=f"{name} (plain auto-encoder)" if plain else name,
        kind="anchor" if plain else "method",
        files=files,
        identity=contender.identity,
        seconds=seconds,
        codes=codes,
    )


def code_ids(converter: Any, code_TC: Tensor) -> list[bytes]:
    """Return which code each frame of a content code is, nothing where codes are not discrete.

    A straight-through code differs from its vector by a rounding error, so the nearest is looked for.
    """
    import torch

    from mynah.downstream.conversion.core.bottleneck import Binary, Gumbel, VectorQuantiser

    bottleneck = getattr(converter, "bottleneck", None)
    if isinstance(bottleneck, Binary):
        return [(bits_C > 0).numpy().tobytes() for bits_C in code_TC]
    if isinstance(bottleneck, VectorQuantiser):
        book_VC = bottleneck.codebook_VC
    elif isinstance(bottleneck, Gumbel):
        book_VC = bottleneck.vectors.weight.detach().T
    else:
        return []
    return [str(int(v)).encode() for v in torch.cdist(code_TC, book_VC).argmin(1)]


def anchors(
    engine: Engine,
    pairs: Sequence[Pair],
    folder: Path,
    real: Recordings,
    more: Sequence[Utterance] = (),
) -> tuple[list[System], dict[Path, Path]]:
    """Return what bounds every method, and the copy of each real recording.

    Args:
        engine: whose converter is ``copy``.
        pairs: see :func:`mynah.recipes.conversion.pairs.draw`, or ``draw_free``.
        folder: for the copies.
        real: the recordings.
        more: recordings that no pair is about, to be copied as well.

    Raises:
        BadAudioError, BadDataError: recordings that cannot be used.
    """
    from mynah.recipes.conversion.checks import read_recording
    from mynah.recipes.convert import COMMENT
    from mynah.recipes.progress import track

    folder.mkdir(parents=True, exist_ok=True)
    copies: dict[Path, Path] = {}
    took: dict[Path, float] = {}

    def copied(pair: Pair, u: Utterance) -> None:
        path = real.file(u)
        if path in copies:
            return
        references = [read_recording(real.file(one)) for one in pair.references]
        recording = read_recording(path, name=u.id)
        with refusals(pair):
            if not copies:
                engine.convert(recording, references)
            began = time.process_time()
            found = engine.convert(recording, references)
        took[path] = time.process_time() - began
        copies[path] = folder / path.name
        write(copies[path], found.wav_S, found.sample_rate, comment=f"{COMMENT}, copy")

    def system(name: str, own: Sequence[Utterance], said: Sequence[Utterance] = ()) -> System:
        files = [real.file(u) for u in own]
        return System(
            name=name,
            kind="anchor",
            files=[copies[path] for path in files],
            identity=dict(engine.identity),
            seconds=[took[path] for path in files],
            said=said,
        )

    for pair in track(pairs, COPY):
        copied(pair, pair.source)
        copied(pair, pair.target)
    for u in more:
        copied(pairs[0], u)  # a copy heeds no references
    sources, targets = [p.source for p in pairs], [p.target for p in pairs]
    parallel = all(p.parallel for p in pairs)
    found = [
        System(name=UNCHANGED, kind="anchor", files=[real.file(u) for u in sources]),
        system(COPY, sources),
        system(TARGET_COPY if parallel else OTHER_COPY, targets, said=targets),
    ]
    again = [p.again for p in pairs]
    if parallel and any(again):
        takes = [real.file(u) if u else None for u in again]
        found.append(System(name=TAKE, kind="anchor", files=takes, said=again))
    else:
        name = ITSELF if parallel else OTHER
        itself = [real.file(u) for u in targets]
        found.append(System(name=name, kind="anchor", files=itself, itself=parallel, said=targets))
    return found, copies
