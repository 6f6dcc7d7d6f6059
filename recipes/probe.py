"""``mynah probe SPEC TASK``: what a frozen representation is worth for one task.

The upstream runs over the corpus once and its features are kept; then the task's head is trained
with every learning rate of the grid and every seed at once, on the same batches; the learning rate
and the step are chosen on dev; test is scored once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional

from mynah.recipes.probing.job import run
from mynah.recipes.probing.layers import Layers, run_each
from mynah.recipes.probing.settings import Features, Rerun, Settings

if TYPE_CHECKING:
    from mynah.recipes.results import Result

__all__ = ["Args", "Settings", "lines", "main", "run"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Train and score the head of one task on a frozen upstream."""

    spec: Annotated[str, Positional]
    """Upstream: apc/tiny, a run or model folder, hf:DIR, fairseq:FILE, s3prl:NAME ..."""
    task: Annotated[str, Positional]
    """Name of a task (mynah list)."""
    corpus: Path
    """Prepared corpus (mynah prepare)."""
    out: Path
    """Folder of results."""
    store: Path | None = None
    """Folder of the feature store; default: OUT/features."""
    protocol: Literal["fixed", "superb"] = "fixed"
    """superb repeats the published benchmark, fixed mends its mistakes (mynah info TASK)."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the head's initial weights, trained at once; one result each."""
    steps: int | None = None
    """Optimiser updates at most; default: the protocol's. Dev is then scored 20 times or more."""
    lrs: tuple[float, ...] | None = None
    """Learning rates, trained at once; default: the protocol's five."""
    features: Features = "auto"
    """What is kept: means over time, frames, or nothing (stream); auto: what the head reads."""
    layer: int | None = None
    """Use this hidden state only, from 0 (negative: from the end), not the weighted sum."""
    layers: Layers = "sum"
    """each: a probe for every hidden state by itself, from the same features; a result each."""
    layer_norm: bool = False
    """Layer-norm every frame of every hidden state before the sum (needs frames)."""
    splits: Literal["corpus", "made"] = "corpus"
    """made: ignore the corpus's splits and make disjoint ones."""
    lexicon: Path | None = None
    """pr: pronunciations, WORD P1 P2 ... per line, for corpora without phones."""
    lm: Path | None = None
    """asr: n-gram language model (ARPA or KenLM) to decode test with."""
    heads: Literal["protocol", "small"] = "protocol"
    """small: a narrower head of the same kind, for small data."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the upstream's forward."""
    device: str = "cpu"
    """Where the upstream runs."""
    upstream_seed: int = 0
    """Of random weights, where the spec has no others."""
    rerun: Rerun = "missing"
    """missing: only what is not there or came of something else; always; never."""


def lines(results: Sequence[Result]) -> list[str]:
    """Return a line per result: score with interval, what was chosen, what it cost."""
    out = []
    for r in results:
        m = r.main
        rates = "/".join(f"{rate:g}" for rate in sorted({c.learning_rate for c in r.choices}))
        chosen = f"lr {rates}, step {'/'.join(str(c.step) for c in r.choices)}"
        if any(c.layer is not None for c in r.choices):
            chosen = f"layer {'/'.join(str(c.layer) for c in r.choices)}"
        elif r.layer is not None:
            chosen = f"layer {r.layer}, {chosen}"
        cost = sum(c.cpu for c in r.costs.values())
        out.append(
            f"{r.upstream}  {r.label} {r.protocol} {r.corpus} seed {r.seed}: {r.metric} "
            f"{m.scale * m.value:.2f} [{m.scale * m.low:.2f}, {m.scale * m.high:.2f}]  n {m.n} "
            f"({m.unit}: {m.units})  {chosen}  "
            f"skipped {len(r.skipped)}  {cost:.1f} CPU-s"
        )
    return out


def main(args: Args) -> int:
    """Probe and print the scores; exit status 1 where results are missing: a layer failed, or never."""
    from mynah.recipes.progress import console

    settings = Settings(
        protocol=args.protocol,
        seeds=args.seeds,
        steps=args.steps,
        learning_rates=args.lrs,
        features=args.features,
        layer=args.layer,
        layer_norm=args.layer_norm,
        splits=args.splits,
        lexicon=args.lexicon,
        lm=args.lm,
        heads=args.heads,
    )
    asked: dict[str, Any] = {
        "settings": settings,
        "store": args.store,
        "precision": args.precision,
        "device": args.device,
        "upstream_seed": args.upstream_seed,
        "rerun": args.rerun,
    }
    where = (args.spec, args.task, args.corpus, args.out)
    outcomes: list[list[Result] | Exception]
    outcomes = run_each(*where, **asked) if args.layers == "each" else [run(*where, **asked)]
    missing = 0
    for layer, outcome in enumerate(outcomes):
        if isinstance(outcome, Exception):
            missing += len(settings.seeds)
            console.print(f"layer {layer} failed: {outcome}", markup=False)
            continue
        missing += len(settings.seeds) - len(outcome)
        for line in lines(outcome):
            console.print(line, markup=False)
    if missing:
        console.print(f"{missing} results are missing", markup=False)
    return 1 if missing else 0
