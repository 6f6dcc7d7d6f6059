"""The table of pretraining races: times, ratios, and shares of a card's peak."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

# Dense peak of cards in TFLOP/s: bfloat16, and float32 with TF32 products; makers' data sheets.
PEAKS: dict[str, tuple[float, float]] = {
    "B200": (2250.0, 1125.0),
    "H200": (989.0, 494.0),
    "H100 PCIe": (756.0, 378.0),
    "H100": (989.0, 494.0),
    "A100": (312.0, 156.0),
    "L40S": (362.0, 183.0),
    "L4": (121.0, 60.0),
    "A10": (125.0, 62.5),
    "RTX 4090": (165.0, 82.6),
    "RTX 3090": (71.0, 35.6),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant.

    Attributes:
        race: its race.
        name: who.
        precision: fp32 or bf16.
        seconds: median of a step (processor time on a CPU); None where it could not run.
        all_seconds: of every measured step.
        audio: seconds of audio in a step.
        ratio: how many times faster than the best peer in this precision; None for peers.
        utilisation: share of the card's peak, on a GPU.
        note: why it could not run.
    """

    race: str
    name: str
    precision: str
    seconds: float | None = None
    all_seconds: tuple[float, ...] = ()
    audio: float = 0.0
    ratio: float | None = None
    utilisation: float | None = None
    note: str = ""


def peak_of(card: str, precision: str) -> float | None:
    """Return the peak of a card in TFLOP/s, None for one that is not in the table."""
    for part, peaks in PEAKS.items():
        if all(word in card for word in part.split()):
            return peaks[0] if precision == "bf16" else peaks[1]
    return None


def rows_of(
    title: str,
    peer_names: Collection[str],
    seconds: dict[tuple[str, str], list[float]],
    notes: dict[tuple[str, str], str],
    operations: dict[str, int],
    *,
    audio: float,
    peak: Callable[[str], float | None],
) -> list[Row]:
    """Return a row per contestant of a race, peers first, fp32 before bf16.

    Args:
        title: of the race.
        peer_names: who ours is compared with.
        seconds: (name, precision) -> seconds of each measured step.
        notes: (name, precision) -> why it could not run.
        operations: name -> floating-point operations of a step, where counted.
        audio: seconds of audio in a step.
        peak: precision -> the card's peak in TFLOP/s, None where it has none.
    """
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    rows = []
    for name, precision in [*seconds, *notes]:
        key = (name, precision)
        if key in notes:
            rows.append(Row(race=title, name=name, precision=precision, note=notes[key]))
            continue
        mine = name.startswith("ours, ")
        peers = [t for (n, p), t in medians.items() if n in peer_names and p == precision]
        done = operations.get(name.removeprefix("ours, "))
        top = peak(precision)
        rows.append(
            Row(
                race=title,
                name=name,
                precision=precision,
                seconds=medians[key],
                all_seconds=tuple(seconds[key]),
                audio=audio,
                ratio=min(peers) / medians[key] if mine and peers else None,
                utilisation=done / medians[key] / (top * 1e12) if done and top else None,
            )
        )
    return sorted(rows, key=lambda row: (row.precision != "fp32", row.name.startswith("ours")))


def lines(rows: Sequence[Row], *, gpu: bool = False) -> list[str]:
    """Return a Markdown table."""
    unit = "s" if gpu else "CPU s"
    found = [
        f"| pretraining step | {unit} / step | audio s / {unit} | x best peer"
        + (" | of the card's peak |" if gpu else " |"),
        "|---|---|---|---|" + ("---|" if gpu else ""),
    ]
    title = ""
    for row in rows:
        if row.race != title:
            title = row.race
            audio = next((r.audio for r in rows if r.race == title and r.audio), 0.0)
            found.append(f"| **{title}**, {audio:g} s of audio | | | |" + (" |" if gpu else ""))
        name = f"{row.name}, {row.precision}"
        if row.seconds is None:
            found.append(f"| {name} | {row.note} | | |" + (" |" if gpu else ""))
            continue
        cells = [
            f"{row.seconds:.3f}",
            f"{row.audio / row.seconds:.2f}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
        ]
        if gpu:
            cells.append("" if row.utilisation is None else f"{row.utilisation:.1%}")
        found.append(f"| {name} | {' | '.join(cells)} |")
    return found
