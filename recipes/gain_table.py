"""The table of ``mynah gain``: pretrained against untrained, task by task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mynah.recipes.gain import Args, Probe
    from mynah.recipes.paired import Comparison, Side
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
            alone = _scores(found, args, spec, probe)
            row += [alone or "–", "", ""]
            missing |= alone is None
        rows.append(row)
    heads = f", each the mean of {args.heads} heads" if args.heads > 1 else ""
    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{text}\n\nPer cent; means over {len(args.seeds)} seeds{heads}; in brackets 95 % bootstrap "
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
    sides: tuple[list[Side], list[Side]] = ([], [])
    for seed in args.seeds:
        try:
            names = _ids(args, model, seed)
        except (ValueError, LookupError, FileNotFoundError):
            return None
        for side, name in zip(sides, names, strict=True):
            heads = _heads(found, args, (name, probe.task, corpus), seed)
            if heads is None:
                return None
            side.append(heads)
    ours, other = (paired.joined(side) for side in sides)
    return paired.compare(ours, other)


def _heads(found: Found, args: Args, key: tuple[str, str, str], seed: int) -> Side | None:
    """Return the mean of the heads on a model of one seed, None where one is missing."""
    from mynah.recipes import paired
    from mynah.recipes.gain import head_seeds

    entries = [found.get((*key, one)) for one in head_seeds(args, seed)]
    known = [entry for entry in entries if entry is not None]
    if len(known) < len(entries):
        return None
    return paired.averaged(paired.side([p for p, _ in known], [r for _, r in known]))


def _scores(
    found: Found,
    args: Args,
    name: str,
    probe: Probe,
) -> str | None:
    from mynah.recipes import paired
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.upstream.core import spec

    corpus = Corpus.open(probe.corpus).name
    sides = [
        _heads(found, args, (spec.describe(name, seed=seed), probe.task, corpus), seed)
        for seed in args.seeds
    ]
    known = [side for side in sides if side is not None]
    if len(known) < len(sides):
        return None
    side = paired.joined(known)
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
