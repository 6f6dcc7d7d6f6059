"""``mynah speed dtw``: our query-by-example matching against s3prl's.

The same random features for all, one process, one thread; what counts is processor time per pair of
query and document (worker processes included), the median of the rounds. Contestants take
turns.

* ``s3prl match``: s3prl's own function (``downstream/quesst14_dtw/expert.py``: scipy's distances,
  dtw-python), called in a loop. It takes one layer; s3prl runs the whole protocol again for each.
* ``s3prl match, in its pool``: the same, submitted pair by pair to a ``ProcessPoolExecutor`` of one
  worker, which is how s3prl runs it: arrays are pickled to the worker.
* ``ours``: :func:`mynah.tasks.core.dtw.match`, all queries and documents at once; and all layers at
  once, per pair and layer.

s3prl's are timed on some of the pairs, since each pair is by itself; ours on all, reading and
normalising included. ``difference`` is the largest between their scores and ours.

The default sizes are those of QUESST 2014 [recalled, not verified]: queries of about a second and
documents of about 6.6 s, at 50 frames a second and the width of a base model.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import statistics
import sys
import time
import types
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mynah.files import write_text
from mynah.recipes.threads import limited

if TYPE_CHECKING:
    from torch import Tensor

OURS = "ours"
_SETTINGS = {
    "step_pattern": "asymmetric",
    "keep_internals": False,
    "distance_only": False,
    "open_begin": True,
    "open_end": True,
}  # what s3prl gives dtw-python for subsequences
_LEAST_QUERY = 7  # frames; a fifth less is 5, the least that is compared
Pair = tuple[int, int]
Contestant = tuple[Callable[[], "Tensor"], int]  # scores of the picked pairs, and pairs it did


@dataclass(frozen=True, kw_only=True)
class Args:
    """Race our query-by-example matching against s3prl's, per pair of query and document."""

    queries: int = 100
    """Number of queries."""
    docs: int = 24
    """Number of documents."""
    query_frames: int = 50
    """Mean length of a query; lengths vary by a fifth."""
    doc_frames: int = 330
    """Mean length of a document; lengths vary by a fifth."""
    widths: tuple[int, ...] = (768,)
    """Widths of the features, one table for each."""
    layers: int = 13
    """Layers of the contestant that takes all of them at once."""
    pairs: int = 24
    """Pairs that s3prl's contestants are timed on, in each round."""
    rounds: int = 5
    """Rounds."""
    threads: int = 1
    """Processor threads."""
    json: Path | None = None
    """Also write the rows here."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contestant on one problem.

    Attributes:
        problem: numbers and lengths.
        name: who.
        milliseconds: median CPU time per pair (and layer); None where it could not run.
        all_milliseconds: of every round.
        ratio: its time over ours.
        difference: largest difference of its scores from ours.
        note: why it could not run.
    """

    problem: str
    name: str
    milliseconds: float | None = None
    all_milliseconds: tuple[float, ...] = ()
    ratio: float | None = None
    difference: float | None = None
    note: str = ""


def main(args: Args) -> int:
    """Run the races and print a table for each width.

    Raises:
        ValueError: settings that make no race.
    """
    from mynah.recipes.progress import console

    counts = (
        args.queries, args.docs, args.query_frames, args.doc_frames, args.layers, args.pairs,
        args.rounds, args.threads, *args.widths,
    )  # fmt: skip
    if not args.widths or min(counts) < 1:
        raise ValueError("give a width; every number must be at least 1")
    if args.query_frames < _LEAST_QUERY:
        raise ValueError(
            f"query_frames must be at least {_LEAST_QUERY}: queries under 5 frames are not compared"
        )
    rows: list[Row] = []
    for width in args.widths:
        found = run(args, width)
        for line in lines(found):
            console.print(line)
        rows += found
    if args.json is not None:
        write_text(args.json, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0


def features(count: int, frames: int, width: int, *, layers: int, seed: int) -> list[Tensor]:
    """Return normal features (layers, T, width) with T uniform within a fifth of ``frames``."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    spread = frames // 5
    lengths = torch.randint(frames - spread, frames + spread + 1, (count,), generator=generator)
    return [torch.randn(layers, length, width, generator=generator) for length in lengths.tolist()]


def run(args: Args, width: int) -> list[Row]:
    """Race on features of one width and return a row per contestant, ours last."""
    import torch

    from mynah.recipes.progress import track
    from mynah.tasks.core.dtw import match

    queries = features(args.queries, args.query_frames, width, layers=args.layers, seed=0)
    docs = features(args.docs, args.doc_frames, width, layers=args.layers, seed=1)
    one = ([query[0] for query in queries], [doc[0] for doc in docs])
    generator = torch.Generator().manual_seed(2)
    total = args.queries * args.docs
    picked = torch.randperm(total, generator=generator)[: args.pairs]
    at = (picked // args.docs, picked % args.docs)
    pairs = list(zip(at[0].tolist(), at[1].tolist(), strict=True))

    all_layers = f"{OURS}, {args.layers} layers at once"
    contestants: dict[str, Contestant] = {
        OURS: (lambda: match(*one)[at], total),
        all_layers: (lambda: match(queries, docs)[0][at], total * args.layers),
    }
    notes: dict[str, str] = {}
    try:
        contestants |= _s3prl(*one, pairs)
    except ImportError as error:
        notes["s3prl match"] = f"cannot run here: {error}; pip install dtw-python lxml"
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    scores: dict[str, Tensor] = {}
    turns = [name for _ in range(args.rounds) for name in contestants]
    with limited(args.threads):
        for name in track(turns, "racing"):
            work, units = contestants[name]
            begin = _cpu()
            scores[name] = work()
            seconds[name].append((_cpu() - begin) / units)
    differences = {
        name: float((found.double() - scores[OURS].double()).abs().max())
        for name, found in scores.items()
    }
    problem = (
        f"{args.queries} queries of {args.query_frames} frames x {args.docs} documents of "
        f"{args.doc_frames}, width {width}"
    )
    return _rows(problem, seconds, differences, notes)


def s3prl_match() -> tuple[Callable[..., tuple[str, str, float]], Callable[..., Any]]:
    """Return s3prl's ``match`` and ``cosine_exp``, its own code.

    The module beside it reads audio with sox through torchaudio, which is gone from torchaudio 2.9;
    neither function uses it, so an empty module stands in for it while they are imported.

    Raises:
        ImportError: dtw-python or lxml is not installed.
    """
    from mynah.upstream.interop.s3prl import ensure_importable

    ensure_importable()
    name = "s3prl.downstream.quesst14_dtw.dataset"
    before = sys.modules.get(name)
    stand_in = types.ModuleType(name)
    stand_in.__dict__["QUESST14Dataset"] = object
    sys.modules[name] = stand_in
    try:
        from s3prl.downstream.quesst14_dtw.expert import cosine_exp, match
    finally:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
    return match, cosine_exp


def _s3prl(
    queries: Sequence[Tensor], docs: Sequence[Tensor], pairs: Sequence[Pair]
) -> dict[str, Contestant]:
    import torch

    match, distance = s3prl_match()
    calls = [
        (queries[query].numpy(), docs[doc].numpy(), "query", "doc", distance, True, _SETTINGS)
        for query, doc in pairs
    ]

    def loop() -> Tensor:
        return torch.tensor([match(*call)[2] for call in calls], dtype=torch.float64)

    def pooled() -> Tensor:
        fork = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(max_workers=1, mp_context=fork) as executor:
            futures = [executor.submit(match, *call) for call in calls]
            found = [future.result()[2] for future in futures]
        return torch.tensor(found, dtype=torch.float64)

    return {
        "s3prl match": (loop, len(pairs)),
        "s3prl match, in its pool": (pooled, len(pairs)),
    }


def _cpu() -> float:
    """Return the processor time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _rows(
    problem: str,
    seconds: dict[str, list[float]],
    differences: dict[str, float],
    notes: dict[str, str],
) -> list[Row]:
    own = statistics.median(seconds[OURS])
    rows = [Row(problem=problem, name=name, note=note) for name, note in notes.items()]
    for name, values in seconds.items():
        rows.append(
            Row(
                problem=problem,
                name=name,
                milliseconds=1000 * statistics.median(values),
                all_milliseconds=tuple(1000 * value for value in values),
                ratio=statistics.median(values) / own,
                difference=differences[name],
            )
        )
    return sorted(rows, key=lambda row: row.name.startswith(OURS))


def lines(rows: Sequence[Row]) -> list[str]:
    """Return a Markdown table of one problem."""
    found = [
        f"| DTW, {rows[0].problem} | CPU ms per pair and layer | time / ours | difference |",
        "|---|---|---|---|",
    ]
    for row in rows:
        if row.milliseconds is None:
            found.append(f"| {row.name} | {row.note} | | |")
        else:
            found.append(
                f"| {row.name} | {row.milliseconds:.3f} | {row.ratio:.2f} | {row.difference:.1e} |"
            )
    return found
