"""``mynah speed memory``: does memory grow with the corpus?

Two corpora of made-up audio, one several times as long as the other, go through the same probe
(extraction included), each in a process of its own; the peak resident memory of both is compared.
The audio is noise: what is measured is bookkeeping, not learning.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

PHONES = ("AA", "B", "D", "EH", "F", "G", "IY", "K")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Compare the peak memory of extraction and probing on a corpus and on one times as long."""

    spec: Annotated[str, Positional] = "wav2vec2/tiny"
    """Upstream."""
    tasks: tuple[str, ...] = ("ks", "pr")
    """Tasks: ks keeps means, pr keeps frames."""
    utterances: int = 160
    """Utterances of the shorter corpus."""
    seconds: float = 3.0
    """Mean length of an utterance."""
    times: int = 8
    """How many times as long the other one is."""
    steps: int = 60
    """Updates of the probe."""
    json: Path | None = None
    """Also write the rows here."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Peak memory of one task on both corpora, in MiB."""

    task: str
    short: float
    long: float
    ratio: float
    short_seconds: float
    long_seconds: float


def make_corpus(folder: Path, *, utterances: int, seconds: float, seed: int = 0) -> float:
    """Write a corpus of noise with labels for ks and pr; returns its seconds of audio."""
    import numpy as np
    import soundfile

    from mynah.tasks.corpora.corpus import write_corpus
    from mynah.tasks.corpora.utterance import Utterance

    stream = np.random.RandomState(seed)
    (folder / "audio").mkdir(parents=True)
    rows = []
    for index in range(utterances):
        samples = int(16000 * seconds * stream.uniform(0.5, 1.5))
        path = folder / "audio" / f"{index:06d}.wav"
        soundfile.write(path, stream.standard_normal(samples).astype(np.float32) / 10, 16000)
        speaker = index % 10
        rows.append(
            Utterance(
                id=f"{index:06d}",
                path=str(path),
                start=0.0,
                duration=samples / 16000,
                sample_rate=16000,
                speaker=f"s{speaker}",
                split="test" if speaker == 9 else "dev" if speaker == 8 else "train",
                labels={
                    "keyword": ("yes", "no")[index // 10 % 2],
                    "phones": " ".join(stream.choice(PHONES, size=5)),
                },
            )
        )
    write_corpus(folder, rows, name=f"noise{utterances}")
    return sum(u.duration for u in rows)


def peak(command: Sequence[str]) -> float:
    """Run a command and return the peak resident memory of its process in MiB.

    Raises:
        RuntimeError: it failed; the message holds the end of what it wrote.
    """
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{output.read()[-2000:]}")
    unit = 1024 if sys.platform != "darwin" else 1024 * 1024
    return usage.ru_maxrss / unit


def run(args: Args) -> list[Row]:
    """Measure every task."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = [args.utterances, args.utterances * args.times]
        seconds = [
            make_corpus(folder / f"corpus{n}", utterances=n, seconds=args.seconds) for n in lengths
        ]
        for task in args.tasks:
            peaks = [
                peak(
                    [
                        *(sys.executable, "-m", "mynah", "probe", args.spec, task),
                        *("--corpus", str(folder / f"corpus{n}"), "--steps", str(args.steps)),
                        *("--out", str(folder / f"out{n}")),
                        *("--store", str(folder / f"store{n}{task}")),
                    ]
                )
                for n in lengths
            ]
            rows.append(
                Row(
                    task=task,
                    short=peaks[0],
                    long=peaks[1],
                    ratio=peaks[1] / peaks[0],
                    short_seconds=seconds[0],
                    long_seconds=seconds[1],
                )
            )
    return rows


def main(args: Args) -> int:
    """Print the comparison.

    Raises:
        ValueError: the sizes make no sense.
    """
    if args.utterances < 40 or args.times < 2 or not 0.1 <= args.seconds <= 60:
        raise ValueError(
            "utterances must be at least 40, times at least 2 and seconds 0.1 to 60, got "
            f"{args.utterances}, {args.times}, {args.seconds}"
        )
    if args.steps < 1 or not args.tasks:
        raise ValueError(f"give a task; steps must be at least 1, got {args.steps}")
    rows = run(args)
    from rich.table import Table

    from mynah.recipes.progress import console

    short, long = (f"{s / 60:.0f} min" for s in (rows[0].short_seconds, rows[0].long_seconds))
    table = Table("task", f"peak MiB, {short}", f"peak MiB, {long}", "ratio")
    for row in rows:
        table.add_row(row.task, f"{row.short:.0f}", f"{row.long:.0f}", f"{row.ratio:.3f}")
    console.print(table)
    if args.json is not None:
        from mynah.files import write_text

        write_text(args.json, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0
