"""``mynah speed probe``: a whole KS-like probe, ours against s3prl's own code.

The same frozen wav2vec 2.0 with random weights, the same clips, the same head with the same initial
weights, the same batches in the same order, Adam 1e-4, gradient norm 1: what differs is that s3prl
runs the upstream at every step, and we run it once and train on means over time, which is the same
model because the head has no non-linearity (``downstream/linear_mean.py``).

s3prl's side is its own classes, used as its ``Runner`` uses them: the upstream from
``wav2vec2_custom``, ``Featurizer``, ``UtteranceLevel``, cross-entropy, ``clip_grad_norm_``. Its
runner itself cannot be imported for KS since torchaudio dropped sox effects.

What counts is processor time (``time.process_time``). Measured are the extraction, every pass and
the scoring of the test clips. The ratio for more passes than were run is computed from those, and
is printed apart and said to be computed. Clips are of one length, so that s3prl's features do not
depend on padding and the losses can be compared.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mynah.files import write_text
from mynah.recipes.probing.race import CLIP, LEARNING_RATE, Clips, Side, chunks, right_in, timed

if TYPE_CHECKING:
    import numpy as np

    from mynah.upstream.wav2vec2 import Wav2Vec2


@dataclass(frozen=True, kw_only=True)
class Args:
    """Race a whole probe, extraction included, against s3prl's own code on the same weights."""

    corpus: Path | None = None
    """Prepared corpus with the label keyword or label to cut clips from; default: made-up tones."""
    clips: int = 472
    """Training clips."""
    test_clips: int = 96
    """Clips to score."""
    seconds: float = 0.4
    """Length of a clip."""
    batch: int = 32
    """Clips per step."""
    passes: int = 2
    """Passes over the training clips that both really run."""
    project: int = 125
    """Passes for which the ratio is computed from what was measured (125 is KS's number)."""
    variant: Literal["base", "tiny-wav"] = "base"
    """Size of the model."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of our forward; bf16 is faster and its losses are no longer s3prl's."""
    threads: int = 1
    """Processor threads."""
    seed: int = 0
    """Of the weights, the clips and the order of batches."""
    json: Path | None = None
    """Also write the report here."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Both sides and what follows from them.

    Attributes:
        ours: our side.
        theirs: s3prl's.
        passes: passes that were run.
        ratio: s3prl's CPU seconds over ours, measured.
        loss_difference: largest absolute difference of a step's loss.
        project: passes of ``projected_ratio``.
        projected_ratio: s3prl's over ours for ``project`` passes, computed, not run.
        setting: what was raced.
    """

    ours: Side
    theirs: Side
    passes: int
    ratio: float
    loss_difference: float
    project: int
    projected_ratio: float
    setting: dict[str, Any]


def race_ours(
    model: Wav2Vec2, clips: Clips, order: Sequence[Sequence[Sequence[int]]], seed: int, store: Path
) -> Side:
    """Extract once into a feature store, train on its means, score."""
    import torch
    import torch.nn.functional as F

    from mynah.downstream.core.sweep import Sweep
    from mynah.downstream.linear_mean import LinearMean
    from mynah.upstream.store import open_or_extract

    side = Side(name="ours")
    wavs = [*clips.train, *clips.test]
    started = time.process_time()
    reader = open_or_extract(store, model, _items(wavs), kind="pooled")
    side.extract = time.process_time() - started
    sweep = Sweep(
        lambda: LinearMean(model.dim, clips.classes),
        layers=model.num_layers,
        learning_rates=(LEARNING_RATE,),
        seeds=(seed,),
        clip=CLIP,
    )

    def one_pass(batches: Sequence[Sequence[int]]) -> None:
        for batch in batches:
            target_B = torch.tensor([clips.train_labels[i] for i in batch])
            logits_BC = sweep(reader.pooled([str(i) for i in batch]))[0]
            losses_B = F.cross_entropy(logits_BC, target_B, reduction="none")
            sweep.backward(losses_B.mean()[None])
            sweep.update()
            side.losses.append(float(losses_B.detach().mean()))

    def score() -> None:
        probe = sweep.probe(sweep.state(0))
        right = 0
        with torch.no_grad():
            for at, labels in chunks(clips.test_labels, len(order[0][0])):
                ids = [str(len(clips.train) + at + i) for i in range(len(labels))]
                right += right_in(probe(reader.pooled(ids)), labels)
        side.accuracy = right / len(clips.test)

    with reader:
        for batches in order:
            side.passes.append(timed(partial(one_pass, batches)))
        side.score = timed(score)
    return side


def _items(wavs: Sequence[np.ndarray]) -> list[Any]:
    import hashlib

    import numpy as np

    from mynah.upstream.store import Item

    items = []
    for i, wav in enumerate(wavs):
        key = hashlib.sha256(wav.tobytes()).digest()[:16]
        items.append(Item(id=str(i), key=key, num_samples=len(wav), load=partial(np.asarray, wav)))
    return items


def run(args: Args) -> Report:
    """Run both sides and compare them.

    Raises:
        ValueError: arguments out of range, or a corpus with too few clips.
        ImportError: s3prl cannot be imported.
    """
    import torch

    from mynah.recipes.probing.race import clips_of
    from mynah.recipes.probing.race_s3prl import race_s3prl, s3prl_upstream
    from mynah.upstream.wav2vec2 import CONFIGS, Wav2Vec2

    if min(args.clips, args.test_clips, args.batch, args.passes, args.project, args.threads) < 1:
        raise ValueError("clips, batch, passes, project and threads must be at least 1")
    if not 0 < args.seconds < float("inf"):
        raise ValueError(f"seconds must be above 0, got {args.seconds:g}")
    clips = clips_of(
        args.corpus,
        train=args.clips,
        test=args.test_clips,
        seconds=args.seconds,
        seed=args.seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        model = Wav2Vec2(CONFIGS[args.variant])
    order = clips.order(args.batch, args.passes, args.seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(args.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="mynah-race-") as folder:
            upstream = s3prl_upstream(model, Path(folder))
            model.freeze(args.precision)
            ours = race_ours(model, clips, order, args.seed, Path(folder) / "store")
            theirs = race_s3prl(upstream, clips, order, args.seed)
    finally:
        torch.set_num_threads(threads)
    differences = [abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True)]
    return Report(
        ours=ours,
        theirs=theirs,
        passes=args.passes,
        ratio=theirs.measured() / ours.measured(),
        loss_difference=max(differences),
        project=args.project,
        projected_ratio=theirs.projected(args.project) / ours.projected(args.project),
        setting={
            "upstream": f"wav2vec2/{args.variant}, random weights",
            "precision": args.precision,
            "clips": len(clips.train),
            "test_clips": len(clips.test),
            "seconds": args.seconds,
            "batch": args.batch,
            "classes": clips.classes,
            "corpus": "tones" if args.corpus is None else args.corpus.name,
            "threads": args.threads,
        },
    )


def lines(report: Report) -> list[str]:
    """Return the report for people."""
    s = report.setting
    out = [
        f"{s['upstream']}; {s['clips']} training clips of {s['seconds']:g} s ({s['corpus']}), "
        f"batch {s['batch']}, {report.passes} passes, {s['test_clips']} test clips, "
        f"{s['threads']} thread, ours in {s['precision']}",
        f"{'CPU seconds':<14}{'extract once':>14}{'per pass':>12}{'score':>10}{'total':>10}"
        f"{'accuracy':>12}",
    ]
    out += [
        f"{side.name:<14}{side.extract:>14.2f}{statistics.median(side.passes):>12.3f}"
        f"{side.score:>10.3f}{side.measured():>10.2f}{side.accuracy:>12.4f}"
        for side in (report.theirs, report.ours)
    ]
    steps = len(report.ours.losses)
    out += [
        f"losses of {steps} steps differ by at most {report.loss_difference:.1e}",
        f"measured at {report.passes} passes: s3prl takes {report.ratio:.1f} times our CPU time",
    ]
    if report.project != report.passes:
        out.append(
            f"computed for {report.project} passes from the figures above, not run: "
            f"{report.theirs.projected(report.project):.0f} s against "
            f"{report.ours.projected(report.project):.1f} s, {report.projected_ratio:.0f} times"
        )
    return out


def main(args: Args) -> int:
    """Run the race and print it."""
    from mynah.recipes.progress import console

    report = run(args)
    for line in lines(report):
        console.print(line, markup=False)
    if args.json is not None:
        write_text(args.json, json.dumps(asdict(report), indent=1) + "\n")
    return 0
