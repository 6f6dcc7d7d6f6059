"""``mynah check watermark --corpus DIR``: how often the mark is missed, and found where there is none.

Marked speech is cut, coded, resampled and drowned in noise before the detector hears it; speech that
carries no mark, or another key's, must not be taken for marked. What a mark costs is measured beside.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mynah.recipes.conversion.checks import Wave
    from mynah.recipes.conversion.watermark_survival import Rate, Rates

LENGTHS = (3.0, 6.0)  # seconds: the detector's score grows with them
MOST_MISSED = 0.05
MOST_FALSE = 0.01
PESQ_OF = 20


def run(folder: Path, *, count: int, out: Path | None = None, seed: int = 0) -> int:
    """Print rates and costs.

    Args:
        folder: of a prepared corpus of speech.
        count: stretches of each length at most.
        out: JSON to write.
        seed: of noise and cuts.

    Returns:
        1 where the intervals say that of the longest stretches, otherwise untouched, more than
        ``MOST_MISSED`` are missed, or of any more than ``MOST_FALSE`` are wrongly accused; else 0.

    Raises:
        ValueError: fewer stretches than one.
        FileNotFoundError: no corpus.
        BadDataError: audio that cannot be used, or no stretch that is long enough.
    """
    from mynah.files import write_text
    from mynah.recipes.conversion import watermark_survival
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.progress import track
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.corpora.corpus import Corpus

    if count < 1:
        raise ValueError(f"cases must be at least 1, got {count}")
    corpus = Corpus.open(folder)
    utterances = corpus.utterances()
    try:
        waves = [
            watermark_survival.stretches(utterances, seconds=seconds, count=count)
            for seconds in LENGTHS
        ]
    except (BadAudioError, ValueError) as error:
        raise BadDataError(f"{folder}: {error}") from error
    found = [watermark_survival.rates(theirs, seed=seed) for theirs in track(waves, "marking")]
    quality = pesq(waves[-1][:PESQ_OF])
    for line in (*table(found), *notes(found, corpus.name, quality)):
        sys.stdout.write(line + "\n")
    if out is not None:
        page = {
            "corpus": corpus.name,
            "corpus_version": corpus.version,
            "seed": seed,
            "rates": [asdict(one) for one in found],
            "pesq": quality,
        }
        write_text(out, json.dumps(page, indent=1) + "\n")
    return int(broken(found))


def broken(found: Sequence[Rates]) -> bool:
    """Return whether the detector fails for certain where it must not; see :func:`run`."""
    from mynah.recipes.conversion.watermark_survival import CLEAN

    clean = next(rate for rate in found[-1].misses if rate.what == CLEAN)
    alarms = [rate for one in found for rate in one.false_alarms]
    return clean.low > MOST_MISSED or any(rate.low > MOST_FALSE for rate in alarms)


def table(found: Sequence[Rates]) -> list[str]:
    """Return a Markdown table: a row per change of marked speech, and per kind of unmarked speech."""

    def row(name: str, rates: Sequence[Rate]) -> str:
        cells = [name, *(text for rate in rates for text in (shown(rate), f"{rate.score:.1f}"))]
        return f"| {' | '.join(cells)} |"

    heads = [text for one in found for text in (f"of {one.seconds:g} s", "score")]
    lines = [f"| marked, then: missed | {' | '.join(heads)} |", f"|{'---|' * (len(heads) + 1)}"]
    lines += [row(same[0].what, same) for same in zip(*(one.misses for one in found), strict=True)]
    lines += ["", f"| not marked: accused | {' | '.join(heads)} |", lines[1]]
    lines += [
        row(same[0].what, same) for same in zip(*(one.false_alarms for one in found), strict=True)
    ]
    return lines


def shown(rate: Rate) -> str:
    """Return a rate and its interval in per cent."""
    share, low, high = (100 * x for x in (rate.wrong / rate.total, rate.low, rate.high))
    return f"{rate.wrong}/{rate.total}, {share:.1f} % [{low:.1f}, {high:.1f}]"


def notes(found: Sequence[Rates], name: str, quality: float | None) -> list[str]:
    """Return what must be known to read the table, and what the mark costs."""
    from mynah.recipes.conversion import watermark, watermark_survival

    cost = f"The mark lies {found[-1].speech_to_mark_db:.1f} dB below the speech"
    if quality is not None:
        cost += f"; PESQ of marked against unmarked speech {quality:.2f} of 4.64"
    lacking = watermark_survival.unwritable()
    lost = f" Not written here, so not measured: {', '.join(lacking)}." if lacking else ""
    return [
        "",
        f"Stretches of {name}; 95 % Wilson intervals; median score, above {watermark.THRESHOLD:g} is "
        f"marked. {cost}.{lost}",
    ]


def pesq(waves: Sequence[Wave]) -> float | None:
    """Return the mean PESQ of marked against unmarked speech, None where it cannot be computed.

    That is where ``pesq`` is not installed, or finds speech in none of the stretches.
    """
    from mynah.recipes.conversion import watermark
    from mynah.tasks.metrics.speech_quality import pesq as score

    found = []
    for wav_S in waves:
        try:
            found.append(score(watermark.mark(wav_S, watermark.RATE), wav_S, sample_rate=16000))
        except ValueError:
            continue
    return statistics.fmean(found) if found else None
