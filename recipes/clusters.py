"""``mynah clusters SOURCE --corpus DIR``: how well clusters of frames match hand-labelled phones.

k-means is fitted on the frames of the training split (of all utterances where a corpus names no
splits); purities and PNMI are measured on the test split, on frames whose middle lies in a labelled
stretch. With ``--labels`` the clusters are those of a pretraining run instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mynah.recipes.labelling.sources import Source
    from mynah.tasks.corpora.utterance import Utterance
    from mynah.tasks.metrics.bootstrap import Interval


@dataclass(frozen=True, kw_only=True)
class Args:
    """Hold k-means clusters of frames against phones labelled by hand."""

    source: Annotated[str, Positional]
    """mfcc, or any upstream spec: hubert/tiny, a run folder, hf:DIR ..."""
    corpus: Path
    """Prepared corpus with timed phone labels."""
    layers: tuple[int, ...] = ()
    """Hidden states to cluster, 0 the first, -1 the last; all by default."""
    clusters: int = 100
    """Number of clusters; compare equal numbers only."""
    labels: Path | None = None
    """Folder of a run's labels: use its clusters, which must be of this source."""
    tier: str = "phones"
    """Name of the timed labels; a label's first word is the phone."""
    fit: str = "train"
    """Split to learn the clusters from, or all."""
    split: str = "test"
    """Split to measure on, or all."""
    frames: int = 500_000
    """Frames, at most, to learn from."""
    seed: int = 0
    """Of the sample, of k-means, and of random weights."""


def main(args: Args) -> int:
    """Print a line per hidden state, and return 0.

    Raises:
        ValueError: no timed labels, or settings that do not go together.
        FileNotFoundError, LookupError: no such corpus, split or upstream.
    """
    from rich.table import Table

    from mynah.recipes.progress import console

    table = Table(title=f"{args.source}, {args.corpus.name} ({args.split})")
    for column in ("state", "clusters", "frames", "phone purity", "cluster purity", "PNMI"):
        table.add_column(column, justify="right")
    for name, clusters, frames, found in rows(args):
        cells = [f"{i.value:.3f} ±{(i.high - i.low) / 2:.3f}" for i in found]
        table.add_row(name, str(clusters), f"{frames:,}", *cells)
    console.print(table)
    console.print(
        "± is half of the 95 % bootstrap interval by speaker (by utterance where there are fewer than 5 "
        "speakers); the interval itself lies higher, as purities and information of resamples do.",
        markup=False,
    )
    return 0


def rows(args: Args) -> Iterator[tuple[str, int, int, list[Interval]]]:
    """Yield name, clusters, frames and the three measures of each hidden state; see :func:`main`."""
    from mynah.tasks.corpora.corpus import Corpus

    if min(args.clusters, args.frames) < 1:
        raise ValueError(
            f"--clusters and --frames must be at least 1, got {args.clusters} and {args.frames}"
        )
    corpus = Corpus.open(args.corpus)

    def part(split: str) -> list[Utterance]:
        return corpus.utterances(None if split == "all" or not corpus.splits else split)

    test = [u for u in part(args.split) if u.intervals.get(args.tier)]
    if not test:
        raise ValueError(
            f"{args.corpus} has no timed labels {args.tier!r} in split {args.split!r}: 'mynah prepare "
            "tsv ... --intervals phones=FOLDER', lhotse alignments and the corpus mini have them"
        )
    for name, source in sources(args):
        yield _row(args, name, source, part(args.fit), test)


def sources(args: Args) -> Iterator[tuple[str, Source]]:
    """Yield what is to be clustered: MFCC, or each of the chosen hidden states."""
    from mynah.recipes.labelling.sources import MfccSource, StateSource
    from mynah.upstream.core.spec import load

    if args.source == "mfcc":
        if args.layers:
            raise ValueError("mfcc has no hidden states: leave out --layers")
        yield "mfcc", MfccSource()
        return
    upstream = load(args.source, seed=args.seed)
    for layer in args.layers or range(upstream.num_layers):
        source = StateSource(upstream, layer)
        yield str(source.layer), source


def _row(
    args: Args, name: str, source: Source, fit: Sequence[Utterance], test: Sequence[Utterance]
) -> tuple[str, int, int, list[Interval]]:
    import torch

    from mynah.recipes.labelling.store import Labels
    from mynah.tasks.metrics import clusters as measures
    from mynah.tasks.metrics.bootstrap import bootstrap
    from mynah.upstream.core import kmeans

    if args.labels is None:
        sample_ND = _sample(source, fit, args.frames, args.seed)
        centroids_KD = kmeans.fit(sample_ND, clusters=args.clusters, seed=args.seed).centroids_KD
    else:
        labels = Labels(args.labels)
        if labels.identity["source"] != source.identity():
            raise ValueError(
                f"the clusters in {args.labels} are of {labels.identity['source']}, not of "
                f"{source.identity()}"
            )
        centroids_KD = torch.from_numpy(labels.centroids())
    said: list[str] = []
    heard: list[str] = []
    for utterance in test:
        phones, where_T = phones_of(utterance, args.tier, source)
        numbers_T = kmeans.assign(_features(source, utterance), centroids_KD).numpy()
        count = min(len(where_T), len(numbers_T))
        kept_T = where_T[:count] >= 0
        said.append(" ".join(phones[i] for i in where_T[:count][kept_T]))
        heard.append(" ".join(map(str, numbers_T[:count][kept_T])))
    inventory = sorted({phone for line in said for phone in line.split()})
    size = len(centroids_KD)
    found = [
        bootstrap(
            measure(inventory, size), said, heard, [u.speaker or u.id for u in test], unit="speaker"
        )
        for measure in (measures.phone_purity, measures.cluster_purity, measures.pnmi)
    ]
    return name, size, sum(len(line.split()) for line in said), found


def phones_of(
    utterance: Utterance, tier: str, source: Source
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the labels of an utterance's stretches and which of them each frame lies in, -1: none.

    A frame lies where its middle does: half a stride after its start.
    """
    import numpy as np

    from mynah.recipes.labelling.phones import phones_at

    frames = int(utterance.duration * source.sample_rate) // source.stride + 1
    middle_T = (np.arange(frames) + 0.5) * source.stride / source.sample_rate
    return phones_at(utterance, tier, middle_T)


def _features(source: Source, utterance: Utterance) -> torch.Tensor:
    import torch

    from mynah.tasks.corpora import audio

    wav_S = torch.from_numpy(audio.read(utterance, source.sample_rate))
    return source.features([wav_S])[0]


def _sample(
    source: Source, utterances: Sequence[Utterance], frames: int, seed: int
) -> torch.Tensor:
    """Return at most ``frames`` features (N, D) of whole utterances in a random order."""
    import torch

    order = torch.randperm(len(utterances), generator=torch.Generator().manual_seed(seed))
    parts: list[torch.Tensor] = []
    held = 0
    for index in order.tolist():
        parts.append(_features(source, utterances[index])[: frames - held])
        held += len(parts[-1])
        if held >= frames:
            break
    return torch.cat(parts)
