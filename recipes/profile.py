"""``mynah profile SPEC...``: what a frozen upstream costs.

Parameters; multiply-accumulates by SUPERB's rule, summed over 32 lengths of LibriSpeech and in four
buckets (only the lengths matter, so no audio is needed); and on this machine, of noise, CPU seconds
per second of audio and peak memory, in a process of its own. The multiply-accumulates are those of
the architecture, in closed form or counted as torch runs; what frozen inference saves by Fourier
transforms and folded norms shows in the seconds.

``--published`` holds what is counted of models that are built here, with random weights, against
what SUPERB published of them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

if TYPE_CHECKING:
    from mynah.recipes.costs.measure import Measured
    from mynah.recipes.costs.superb import Macs

GIGA = 1e9


@dataclass(frozen=True, kw_only=True)
class Args:
    """Report parameters, multiply-accumulates, real-time factor and memory of frozen upstreams."""

    specs: Annotated[tuple[str, ...], Positional] = ()
    """Upstreams: families (hubert/base), run folders, hf:DIR, s3prl:NAME ..."""
    seconds: float = 10.0
    """Length of the utterance that is timed."""
    runs: int = 5
    """Runs that the real-time factor is the median of."""
    count_only: bool = False
    """Count; measure neither time nor memory."""
    published: bool = False
    """Compare with what SUPERB published, of every model that can be built here (minutes)."""
    out: Path | None = None
    """Also write everything here, as JSON."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One upstream.

    Attributes:
        spec: as it was given.
        name: its id in tables.
        params: parameters, those for pretraining only included.
        macs: multiply-accumulates.
        measured: time and memory, None where not asked for.
    """

    spec: str
    name: str
    params: int
    macs: Macs
    measured: Measured | None


def profile(
    spec: str, *, seconds: float = 10.0, runs: int = 5, count_only: bool = False
) -> Profile:
    """Count and measure one upstream.

    Raises:
        ValueError, LookupError, FileNotFoundError: a spec that cannot be loaded, or an operation
            that the counter does not know.
    """
    from mynah.recipes.costs.measure import measure
    from mynah.recipes.costs.superb import macs_of
    from mynah.upstream.core import spec as specs

    model = specs.load(spec)
    return Profile(
        spec=spec,
        name=specs.describe(spec),
        params=sum(p.numel() for p in model.parameters()),
        macs=macs_of(model),
        measured=None if count_only else measure(spec, seconds=seconds, runs=runs),
    )


def lines(found: Sequence[Profile]) -> list[str]:
    """Return a Markdown table."""
    from mynah.recipes.costs.superb import BUCKETS

    out = [
        f"| upstream | parameters | GMAC, all | {' | '.join(BUCKETS)} | GMAC/s | counted | CPU s/s | "
        "peak MiB |",
        "|---" * (8 + len(BUCKETS)) + "|",
    ]
    for p in found:
        measured = p.measured
        cells = [
            p.spec,
            f"{p.params:,}",
            _giga(p.macs.total),
            *(_giga(p.macs.buckets[name]) for name in BUCKETS),
            f"{p.macs.per_second / GIGA:.3f}",
            p.macs.how,
            f"{measured.rtf:.4f}" if measured else "–",
            f"{measured.peak:.0f}" if measured else "–",
        ]
        out.append(f"| {' | '.join(cells)} |")
    out += [
        "",
        "GMAC: thousand millions of multiply-accumulates of the architecture, of SUPERB's 32 "
        "utterances (224.86 s) and of its buckets of eight; closed: in closed form, fit: counted at "
        "short lengths and checked at the longest, run: counted at every length.",
    ]
    times = next((p.measured for p in found if p.measured), None)
    if times:
        out[-1] += (
            f" CPU s/s: seconds of processor per second of audio, an utterance of {times.seconds:g} s, "
            f"median of {times.runs}, {times.threads} thread(s); peak: of a process that does only "
            "this."
        )
    return out


def published() -> list[dict[str, Any]]:
    """Return, for each published model, what is counted here and what was published."""
    from mynah.recipes.costs import published as costs
    from mynah.recipes.progress import track
    from mynah.recipes.published import rows

    known = {k.model: k for k in costs.KNOWN}
    out = []
    with_macs = [m for m in rows.models() if m.macs is not None]
    for model in track(with_macs, "models", total=len(with_macs)):
        row: dict[str, Any] = {"model": model.model, "published": dataclasses.asdict(model)}
        entry = known.get(model.model)
        if entry is None:
            row["unbuilt"] = costs.UNBUILT[model.model]
        else:
            count = costs.as_published(entry)
            row |= {"spec": entry.spec, "note": entry.note, "ours": dataclasses.asdict(count)}
            row["difference"] = count.as_published["all"] / (model.macs or 1) - 1
        out.append(row)
    return out


def published_lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return a Markdown table of :func:`published`."""
    out = [
        "| model | built as | parameters | published | GMAC | as SUPERB's profiler adds up | published "
        "| difference | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        theirs = row["published"]
        if "unbuilt" in row:
            cells = ["–", "–", f"{theirs['params']:,}", "–", "–", _giga(theirs["macs"]), "–"]
            note = f"not built: {row['unbuilt']}"
        else:
            ours = row["ours"]
            cells = [
                row["spec"],
                f"{ours['params']:,}",
                f"{theirs['params']:,}",
                _giga(ours["macs"]),
                _giga(ours["as_published"]["all"]),
                _giga(theirs["macs"]),
                f"{100 * row['difference']:+.3f} %",
            ]
            note = row["note"]
        out.append(f"| {' | '.join([row['model'], *cells, note])} |")
    out += [
        "",
        "GMAC: ours, of the hidden states. SUPERB's profiler also counts biases, mask and softmax of "
        "torch's attention function, the objective's outputs that s3prl computes, and adds half of "
        "what a recurrent layer has done since the first utterance after every one (APC, VQ-APC, "
        "modified CPC: their published numbers are not the cost of 32 utterances).",
    ]
    return out


def _giga(macs: int) -> str:
    return f"{macs / GIGA:.3f}" if macs < 10 * GIGA else f"{macs / GIGA:.1f}"


def main(args: Args) -> int:
    """Print the table; exit status 1 if a published total is missed by more than half a per cent.

    Raises:
        ValueError, LookupError, FileNotFoundError: nothing to do, or as :func:`profile`.
    """
    from mynah.files import write_text
    from mynah.recipes.progress import console

    if not args.specs and not args.published:
        raise ValueError("name at least one upstream, as hubert/base, or give --published")
    if args.seconds <= 0 or args.runs < 1:
        raise ValueError(
            f"seconds must be positive and runs at least 1, got {args.seconds}, {args.runs}"
        )
    data: dict[str, Any] = {}
    status = 0
    if args.specs:
        found = [
            profile(spec, seconds=args.seconds, runs=args.runs, count_only=args.count_only)
            for spec in args.specs
        ]
        for line in lines(found):
            console.print(line, markup=False)
        data["profiles"] = [
            {
                **dataclasses.asdict(p),
                "macs": p.macs.total,
                "macs_per_second": p.macs.per_second,
                "buckets": p.macs.buckets,
                "counted": p.macs.how,
            }
            for p in found
        ]
    if args.published:
        compared = published()
        for line in published_lines(compared):
            console.print(line, markup=False)
        data["published"] = compared
        status = int(any(abs(row.get("difference", 0)) > 0.005 for row in compared))
    if args.out is not None:
        write_text(args.out, json.dumps(data, indent=1) + "\n")
    return status
