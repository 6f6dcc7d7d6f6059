"""The table of ``mynah gain``: pretrained against untrained, task by task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mynah.recipes.gain import Args, Probe
    from mynah.recipes.paired import Comparison
    from mynah.recipes.results import Result

Found = dict[tuple[str, str, str, int], tuple[Path, "Result"]]


def render(args: Args, probes: Sequence[Probe]) -> tuple[str, bool]:
    """Return the table as text, and whether anything is missing from it."""
    found = collect(args.out / "results")
    header = ["model", "parameters", "MAC/s", "CPU s"]
    for probe in probes:
        header += [f"{probe.task} {probe.corpus.name}", "untrained", "better by"]
    rows, missing = [], False
    for model in args.models:
        row = [model, *_size(args, model)]
        for probe in probes:
            outcome = _comparison(found, args, model, probe)
            if outcome is None:
                missing = True
                row += ["–"] * 3
                continue
            mark = " ✓" if outcome.separated else ""
            row += [outcome.ours.percent(), outcome.other.percent()]
            row.append(outcome.better.percent(signed=True) + mark)
        rows.append(row)
    for spec in args.baselines:
        row = [spec, "0", "–", "0"]
        for probe in probes:
            alone = _scores(found, [(spec, seed) for seed in args.seeds], probe)
            row += [alone or "–", "", ""]
            missing |= alone is None
        rows.append(row)
    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{text}\n\nPer cent; means over {len(args.seeds)} seeds; in brackets 95 % bootstrap "
        "intervals over speakers (utterances where there are fewer than 5 speakers) and seeds; ✓: "
        "better, and the intervals of both scores do not overlap.",
        missing,
    )


def collect(folder: Path) -> Found:
    """Return results by (upstream id, task, corpus folder's name or corpus name, seed)."""
    from mynah.recipes import results

    found = {}
    for path in results.walk(folder) if folder.is_dir() else ():
        result = results.load(path)
        found[result.upstream, result.task, result.corpus, result.seed] = (path, result)
    return found


def _ids(args: Args, model: str, seed: int) -> tuple[str, str]:
    from mynah.recipes.gain import run_folder
    from mynah.upstream.core import spec

    run = run_folder(args, model, seed)
    return spec.describe(str(run)), spec.describe(model.partition(":")[0], seed=seed)


def _comparison(
    found: Found,
    args: Args,
    model: str,
    probe: Probe,
) -> Comparison | None:
    from mynah.recipes import paired
    from mynah.tasks.corpora.corpus import Corpus

    corpus = Corpus.open(probe.corpus).name
    sides: tuple[list[tuple[Path, Result]], list[tuple[Path, Result]]] = ([], [])
    for seed in args.seeds:
        try:
            names = _ids(args, model, seed)
        except (ValueError, LookupError, FileNotFoundError):
            return None
        for side, name in zip(sides, names, strict=True):
            entry = found.get((name, probe.task, corpus, seed))
            if entry is None:
                return None
            side.append(entry)
    ours, other = (paired.side([p for p, _ in side], [r for _, r in side]) for side in sides)
    return paired.compare(ours, other)


def _scores(
    found: Found,
    pairs: Sequence[tuple[str, int]],
    probe: Probe,
) -> str | None:
    from mynah.recipes import paired
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.upstream.core import spec

    corpus = Corpus.open(probe.corpus).name
    entries = [
        found.get((spec.describe(name, seed=seed), probe.task, corpus, seed))
        for name, seed in pairs
    ]
    known = [entry for entry in entries if entry is not None]
    if len(known) < len(entries):
        return None
    side = paired.side([p for p, _ in known], [r for _, r in known])
    return paired.compare(side, side).ours.percent()


def _size(args: Args, model: str) -> tuple[str, str, str]:
    """Return parameters, multiply-accumulates per second of audio and CPU seconds of pretraining."""
    from mynah import upstream
    from mynah.recipes.costs.superb import macs_of
    from mynah.recipes.gain import run_folder

    built = upstream.build(model.partition(":")[0])
    size = sum(p.numel() for p in built.parameters())
    spent = []
    for seed in args.seeds:
        clock = run_folder(args, model, seed) / "cpu_seconds.json"
        if clock.is_file():
            spent.append(json.loads(clock.read_text("utf-8"))["cpu"])
    average = f"{sum(spent) / len(spent):.0f}" if spent else "–"
    return f"{size:,}", f"{macs_of(built).per_second / 1e6:.0f} M", average
