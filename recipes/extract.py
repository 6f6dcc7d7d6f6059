"""``mynah extract SPEC``: run a frozen upstream over a corpus once and keep its features.

Probing does this by itself; extracting beforehand is for job arrays, GPUs and big corpora.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional

if TYPE_CHECKING:
    from mynah.tasks.corpora.utterance import Utterance
    from mynah.upstream.core.contract import Upstream
    from mynah.upstream.store import Item


@dataclass(frozen=True, kw_only=True)
class Args:
    """Run a frozen upstream over a corpus once and keep its features."""

    spec: Annotated[str, Positional]
    """Upstream: apc/tiny, a run or model folder, hf:DIR, fairseq:FILE, s3prl:NAME ..."""
    corpus: Path
    """Prepared corpus (mynah prepare)."""
    store: Path
    """Folder of the feature store; shared by every upstream and corpus."""
    kind: Literal["auto", "pooled", "frames"] = "auto"
    """Time means per layer, every frame, or whichever fits half of the free disk."""
    dtype: Literal["float16", "int8", "float32"] | None = None
    """How frames are kept: float16 unless given; means are always float32."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the forward; part of the features' identity."""
    split: str | None = None
    """Only this split of the corpus."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1 ..."""
    upstream_seed: int = 0
    """Of random weights, where the spec has no others."""
    batch_seconds: float = 80.0
    """Seconds of audio per forward."""
    shard: str | None = None
    """i/n: only the i-th of n disjoint parts (from 1), for job arrays; torchrun sets it."""
    verify: bool = False
    """Compute nothing: read every kept record of this upstream and name the damaged ones."""
    repair: bool = False
    """Drop what is damaged first, then compute what is missing."""


def items_of(utterances: Sequence[Utterance], sample_rate: int) -> list[Item]:
    """Return what the feature store needs to know of utterances, without reading their audio.

    Args:
        utterances: with unique ids.
        sample_rate: Hz that the upstream takes.

    Raises:
        BadAudioError: a file cannot be read.
    """
    from functools import partial

    from mynah.tasks.corpora import audio
    from mynah.upstream.store import Item

    return [
        Item(
            id=u.id,
            key=bytes.fromhex(audio.content_key(u, sample_rate))[:16],
            num_samples=audio.num_samples(u, sample_rate),
            load=partial(audio.read, u, sample_rate),
        )
        for u in utterances
    ]


def parse_shard(text: str | None) -> tuple[int, int]:
    """Return (i, n) of ``i/n``; without it, torchrun's rank, or the whole.

    Raises:
        ValueError: not of that form, or i outside 1..n.
    """
    if text is None:
        world = int(os.environ.get("WORLD_SIZE", "1"))
        return (int(os.environ.get("RANK", "0")) + 1, world) if world > 1 else (1, 1)
    first, slash, last = text.partition("/")
    if slash and first.isdigit() and last.isdigit() and 1 <= int(first) <= int(last):
        return int(first), int(last)
    raise ValueError(f"--shard must be i/n with 1 <= i <= n, as 3/8; got {text!r}")


def check(store: Path, upstream: Upstream, *, repair: bool) -> int:
    """Read every kept record of an upstream; returns how many were read.

    Raises:
        BadDataError: something is damaged and ``repair`` is off; the message names everything.
    """
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.progress import console
    from mynah.upstream.store import FeatureStore

    fingerprint = upstream.fingerprint()
    mine = [f for f in FeatureStore(store).folders() if f.meta.fingerprint == fingerprint]
    damage = [(folder, d) for folder in mine for d in folder.damage()]
    if not damage:
        return sum(len(folder.table().entries) for folder in mine)
    named = [d.reason for _, d in damage]
    if not repair:
        shown = "\n  ".join(named[:50])
        more = f"\n  and {len(named) - 50} more" if len(named) > 50 else ""
        raise BadDataError(
            f"{len(named)} damaged in {store}:\n  {shown}{more}\n"
            "run the same command with --repair instead of --verify to compute them again"
        )
    for folder in mine:
        folder.drop([d for f, d in damage if f is folder])
    for reason in named:
        console.print(f"dropped: {reason}")
    return sum(len(folder.table().entries) for folder in mine)


def main(args: Args) -> int:
    """Extract, or check what was extracted.

    Raises:
        ValueError: a spec, shard or type that does not exist, or batches of no length.
        FileNotFoundError: no such corpus or weights.
        BadDataError: damaged features (``--verify``).
        OSError: the disk is full; what was finished is kept.
    """
    from mynah.recipes.progress import console, track
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.upstream.core import spec as specs
    from mynah.upstream.store import FeatureStore, open_or_extract
    from mynah.upstream.store.choose import size

    if not 0 < args.batch_seconds < float("inf"):
        raise ValueError(f"--batch-seconds must be above 0, got {args.batch_seconds:g}")
    part = parse_shard(args.shard)
    device = args.device
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    FeatureStore(args.store)  # refuses a file before the model is read
    corpus = Corpus.open(args.corpus)
    utterances = corpus.utterances(args.split)
    upstream = specs.load(
        args.spec, precision=args.precision, device=device, seed=args.upstream_seed
    )
    if args.verify or args.repair:
        count = check(args.store, upstream, repair=args.repair)
        console.print(f"{count} records are whole")
        if not args.repair:
            return 0
    with open_or_extract(
        args.store,
        upstream,
        items_of(utterances, upstream.sample_rate),
        kind=args.kind,
        dtype=args.dtype,
        batch_seconds=args.batch_seconds,
        part=part,
        progress=track,
    ) as reader:
        if reader.choice:
            console.print(reader.choice)
        stats = reader.stats
        if reader.kind == "stream":
            console.print("nothing was kept: every probe will compute these features again")
            return 0
        speed = stats.audio_seconds / stats.cpu_seconds if stats.cpu_seconds else 0.0
        console.print(
            f"{upstream.name} on {corpus.name}: {stats.computed} computed "
            f"({stats.audio_seconds:.0f} s of audio, {stats.cpu_seconds:.1f} CPU-s, "
            f"{speed:.0f} audio-s per CPU-s), {stats.reused} there already, "
            f"{len(corpus.skipped)} skipped by the corpus, {size(stats.bytes_written)} written"
        )
        if stats.fallbacks:
            console.print(f"{stats.fallbacks} kept in float32: float16 could not hold them")
    return 0
