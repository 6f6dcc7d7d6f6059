"""A few utterances as audio in the page: Ogg/Opus as data, the same bytes for the same samples.

libsndfile numbers each Ogg stream at random; :func:`numbered` writes another number and the pages'
checksums anew (RFC 3533).
"""

from __future__ import annotations

import base64
import io
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mynah.recipes.results import Result

if TYPE_CHECKING:
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.tasks.corpora.utterance import Utterance

log = logging.getLogger(__name__)

RATE = 16000
SECONDS = 20.0  # longer utterances are cut
SQUEEZE = 0.95  # of libsndfile, 1 is smallest
SERIAL = 1


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One utterance as the page plays it.

    Attributes:
        name: id of the utterance.
        data: address with the audio in it; "" where the page has it further up.
        anchor: of the place in the page.
    """

    name: str
    data: str
    anchor: str


class Clips:
    """Clips within a number and a budget; an utterance is embedded once.

    Args:
        corpora: prepared corpora, by name.
        count: clips at most.
        budget: bytes of page at most, over all clips.
    """

    def __init__(self, corpora: Mapping[str, Sequence[Corpus]], count: int, budget: int) -> None:
        self.corpora, self.count, self.budget = corpora, count, budget
        self.bytes = 0
        self._made: dict[tuple[str, str], str] = {}
        self._known: dict[str, dict[str, Utterance]] = {}

    def of(self, result: Result, row: str) -> list[Clip]:
        """Return the clips of a scored row: its utterance, or both of a trial; what fits."""
        corpus = next(
            (c for c in self.corpora.get(result.corpus, ()) if c.version == result.corpus_version),
            None,
        )
        if corpus is None:
            return []
        if corpus.version not in self._known:
            self._known[corpus.version] = {u.id: u for u in corpus.utterances()}
        known = self._known[corpus.version]
        out = []
        for name in _utterances(row, known):
            key = (corpus.version, name)
            if key in self._made:
                out.append(Clip(name=name, data="", anchor=self._made[key]))
                continue
            if len(self._made) >= self.count:
                continue
            data = as_data(known[name])
            if data is None or self.bytes + len(data) > self.budget:
                continue
            self.bytes += len(data)
            self._made[key] = f"clip-{len(self._made) + 1}"
            out.append(Clip(name=name, data=data, anchor=self._made[key]))
        return out

    def shared(
        self, asked: Sequence[tuple[Result, Sequence[str]]]
    ) -> list[tuple[tuple[Clip, ...], ...]]:
        """Return the clips of many tables: the first row of each, then the second of each ...

        Args:
            asked: of each table a result, which says the corpus, and the rows.
        """
        found: list[list[tuple[Clip, ...]]] = [[] for _ in asked]
        for row in range(max((len(rows) for _, rows in asked), default=0)):
            for (result, rows), mine in zip(asked, found, strict=True):
                if row < len(rows):
                    mine.append(tuple(self.of(result, rows[row])))
        return [tuple(mine) for mine in found]

    def __len__(self) -> int:
        return len(self._made)


def _utterances(row: str, known: Mapping[str, Utterance]) -> list[str]:
    """Return the utterances of a row: itself, or the two that a trial's id joins by ``_``."""
    if row in known:
        return [row]
    cuts = [i for i, letter in enumerate(row) if letter == "_"]
    both = next(
        ((row[:i], row[i + 1 :]) for i in cuts if {row[:i], row[i + 1 :]} <= known.keys()), ()
    )
    return list(both)


def as_data(utterance: Utterance) -> str | None:
    """Return an utterance as an address with its audio in it, None where it cannot be read."""
    import soundfile

    from mynah.tasks.corpora.audio import BadAudioError, read

    try:
        wav_S = read(utterance, RATE)[: int(SECONDS * RATE)]
    except (BadAudioError, OSError) as error:
        log.warning("%s: the report goes without its audio", error)
        return None
    buffer = io.BytesIO()
    soundfile.write(buffer, wav_S, RATE, format="OGG", subtype="OPUS", compression_level=SQUEEZE)
    data = base64.b64encode(numbered(buffer.getvalue(), SERIAL)).decode()
    return f"data:audio/ogg;base64,{data}"


def numbered(ogg: bytes, serial: int) -> bytes:
    """Return an Ogg file of one stream with another serial number.

    Raises:
        ValueError: not Ogg.
    """
    out = []
    for page in _pages(ogg):
        page[14:18] = serial.to_bytes(4, "little")
        page[22:26] = bytes(4)
        page[22:26] = checksum(page).to_bytes(4, "little")
        out.append(bytes(page))
    return b"".join(out)


def _pages(ogg: bytes) -> Iterator[bytearray]:
    at = 0
    while at < len(ogg):
        head = ogg[at : at + 27]
        if len(head) < 27 or head[:4] != b"OggS":
            raise ValueError(f"no Ogg page at byte {at} of {len(ogg)}")
        segments = head[26]
        size = 27 + segments + sum(ogg[at + 27 : at + 27 + segments])
        yield bytearray(ogg[at : at + size])
        at += size


def _table() -> list[int]:
    out = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
        out.append(value)
    return out


_CRC = _table()


def checksum(page: bytes | bytearray) -> int:
    """Return the CRC-32 of an Ogg page: polynomial 04c11db7, not reflected, from 0."""
    value = 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ _CRC[value >> 24 ^ byte]
    return value


def named(results: Sequence[Result], given: Sequence[Path]) -> dict[str, list[Corpus]]:
    """Return the corpora that are given, or else those that the results' commands name.

    Whether one is that of a result is decided by its version, so a folder that has changed is
    not used.

    Raises:
        FileNotFoundError, ManifestError: a folder that was given is no prepared corpus.
    """
    from mynah.tasks.corpora.corpus import Corpus

    found: dict[str, list[Corpus]] = {}
    folders = list(given) or [f for f in _commanded(results) if (f / "corpus.json").is_file()]
    for folder in dict.fromkeys(folders):
        corpus = Corpus.open(folder)
        found.setdefault(corpus.name, []).append(corpus)
    return found


def _commanded(results: Sequence[Result]) -> list[Path]:
    """Return folders after ``--corpus`` and those of ``--suite`` in the commands of results."""
    from mynah.recipes.suite import read_suite

    out: set[Path] = set()
    for command in sorted({r.command for r in results}):
        option = ""
        try:
            words = shlex.split(command)
        except ValueError:
            continue
        for given in words:
            word = given
            if given.startswith("--"):
                option, _, word = given.partition("=")
                if not word:
                    continue
            if option == "--corpus":
                out.add(Path(word))
            elif option == "--suite":
                try:
                    suite = read_suite(Path(word))
                except (OSError, ValueError, LookupError):  # another file by now, or elsewhere
                    continue
                out.update(folder for many in suite.values() for folder in many)
    return sorted(out)
