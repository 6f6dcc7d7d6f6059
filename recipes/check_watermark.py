"""``mynah check watermark --corpus DIR``: how often the mark is missed, and found where there is none."""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mynah.recipes.conversion.checks import Wave
    from mynah.recipes.conversion.watermark_rates import Rate
    from mynah.tasks.corpora.corpus import Corpus

SECONDS = 3.0  # about what the detector needs; shorter recordings of a speaker are joined
MOST_MISSED = 0.05
MOST_FALSE = 0.01
PESQ_OF = 20


def stretches(corpus: Corpus, count: int) -> list[Wave]:
    """Return up to ``count`` stretches of three seconds or more, 16 kHz, of one speaker each.

    Raises:
        BadAudioError: a recording that cannot be read.
        ValueError: there is no such stretch.
    """
    import numpy as np

    from mynah.recipes.conversion.watermark import RATE
    from mynah.tasks.corpora.audio import read

    waiting: dict[str, list[Wave]] = defaultdict(list)
    found: list[Wave] = []
    utterances = corpus.utterances()
    for u in sorted(utterances, key=lambda u: (hash_of(u.id), u.id)):
        if len(found) == count:
            break
        parts = waiting[u.speaker or ""]
        parts.append(read(u, RATE))
        if sum(map(len, parts)) >= SECONDS * RATE:
            joined = np.concatenate(parts)
            if np.abs(joined).max() > 0:
                found.append(joined)
            parts.clear()
    if not found:
        raise ValueError(f"{corpus.name} has no {SECONDS:g} seconds of one speaker")
    return found


def hash_of(name: str) -> int:
    """Return a number by which utterances are mixed, always in the same way."""
    import zlib

    return zlib.crc32(name.encode())


def run(folder: Path, *, count: int, out: Path | None) -> int:
    """Print the rates; exit status 1 where clean audio is missed or unmarked audio is accused too often.

    Raises:
        FileNotFoundError: no corpus.
        BadDataError: audio that cannot be used.
    """
    from mynah.recipes.conversion import watermark, watermark_rates
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.results import write_text
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.corpora.corpus import Corpus

    corpus = Corpus.open(folder)
    try:
        waves = stretches(corpus, count)
    except (BadAudioError, ValueError) as error:
        raise BadDataError(str(error)) from error
    misses, false, ratio = watermark_rates.rates(waves)
    lengths = [len(wav_S) / watermark.RATE for wav_S in waves]
    quality = _pesq(waves)
    say = sys.stdout.write
    say("| marked speech, then | missed | score |\n|---|---|---|\n")
    for rate in misses:
        say(f"| {rate.what} | {_shown(rate)} | {rate.score:.1f} |\n")
    say(
        f"\nFalse alarms, unmarked: {_shown(false)}, score {false.score:.1f}; above "
        f"{watermark.THRESHOLD:g} counts as marked.\n{len(waves)} stretches of {corpus.name}, median "
        f"{statistics.median(lengths):.1f} s. The mark lies {ratio:.1f} dB below the speech"
    )
    say(f"; PESQ of marked against unmarked {quality:.2f}.\n" if quality is not None else ".\n")
    if out is not None:
        page = {
            "corpus": corpus.name,
            "corpus_version": corpus.version,
            "misses": [asdict(rate) for rate in misses],
            "false_alarms": asdict(false),
            "speech_to_mark_db": ratio,
            "pesq": quality,
        }
        write_text(out, json.dumps(page, indent=1) + "\n")
    clean = next(rate for rate in misses if rate.what == "nothing")
    return int(clean.low > MOST_MISSED or false.low > MOST_FALSE)


def _shown(rate: Rate) -> str:
    return (
        f"{rate.wrong} of {rate.total} ({100 * rate.wrong / rate.total:.1f} % "
        f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}])"
    )


def _pesq(waves: list[Wave]) -> float | None:
    """Return the mean PESQ of marked against unmarked speech, None where pesq is not installed."""
    from mynah.recipes.conversion import watermark
    from mynah.tasks.metrics.speech_quality import pesq

    rate = watermark.RATE
    try:
        return statistics.fmean(
            pesq(watermark.mark(w, rate), w, sample_rate=rate) for w in waves[:PESQ_OF]
        )
    except ValueError:
        return None
