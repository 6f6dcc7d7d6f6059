"""From audio to labels: learn clusters on some of it, label all of it.

Two passes over the audio. The first reads utterances in a random order until it has enough frames
to learn the clusters from; the second labels every utterance, a batch at a time, so that memory
holds one batch of features and one small integer per frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mynah.recipes.labelling.sources import Source
from mynah.recipes.labelling.store import INDEX, Labels, write
from mynah.recipes.progress import track
from mynah.recipes.training.values import LabelsConfig
from mynah.tasks.corpora import audio
from mynah.tasks.corpora.batching import duration_batches
from mynah.tasks.corpora.utterance import Utterance
from mynah.upstream.core import kmeans
from mynah.upstream.core.contract import Upstream

BATCH_SECONDS = 80.0


def labels_for(
    folder: Path,
    utterances: Sequence[Utterance],
    model: Upstream,
    source: Source,
    config: LabelsConfig,
    *,
    clusters: int,
    seed: int,
    data: Mapping[str, Any],
) -> Labels:
    """Return the labels of a corpus for a model's frames; they are made if they are not there.

    Args:
        folder: where they are kept.
        utterances: to label.
        model: whose frames get a label each.
        source: of the features that are clustered.
        config: the recipe's ``labels`` part.
        clusters: number of clusters.
        seed: of the sample and of k-means.
        data: identity of the audio.

    Raises:
        BadAudioError: a file cannot be decoded.
        ValueError: fewer distinct frames than clusters, or labels of something else are there.
    """
    identity = identity_of(model, source, config, clusters=clusters, seed=seed, data=data)
    found = kept(folder, identity)
    if found is not None:
        return found
    batches = duration_batches([u.duration for u in utterances], BATCH_SECONDS, seed=seed, epoch=0)
    sample_ND = sample(batches, utterances, model, source, frames=config.frames)
    fitted = kmeans.fit(sample_ND, clusters=clusters, inits=config.tries, seed=seed)
    del sample_ND
    centroids_KD = fitted.centroids_KD.float().cpu()

    def labelled() -> Iterator[tuple[str, NDArray[np.int32]]]:
        for members in track(batches, "labelling"):
            chosen = [utterances[i] for i in members]
            for one, x_TD in zip(chosen, aligned(chosen, model, source), strict=True):
                yield one.id, kmeans.assign(x_TD, centroids_KD).numpy().astype(np.int32)

    return write(
        folder,
        labelled(),
        centroids_KD=centroids_KD.numpy(),
        stride=model.stride,
        identity=identity,
        inertia=float(fitted.inertia),
    )


def identity_of(
    model: Upstream,
    source: Source,
    config: LabelsConfig,
    *,
    clusters: int,
    seed: int,
    data: Mapping[str, Any],
) -> dict[str, Any]:
    """Return all that labels depend on, ready for JSON; arguments as :func:`labels_for`."""
    return {
        "source": source.identity(),
        "data": dict(data),
        "clusters": clusters,
        "frames": config.frames,
        "tries": config.tries,
        "seed": seed,
        "stride": model.stride,
    }


def kept(folder: Path, identity: Mapping[str, Any]) -> Labels | None:
    """Return the labels that a folder holds, None where it holds none.

    Raises:
        ValueError: they are labels of something else.
        BadDataError: they are damaged.
    """
    if not (folder / INDEX).is_file():
        return None
    found = Labels(folder)
    if found.identity != identity:
        raise ValueError(
            f"{folder} holds labels that were made from something else: give another --out, or "
            "remove that folder to make them anew"
        )
    return found


def sample(
    batches: Sequence[Sequence[int]],
    utterances: Sequence[Utterance],
    model: Upstream,
    source: Source,
    *,
    frames: int,
) -> Tensor:
    """Return at most ``frames`` feature vectors (N, D) of whole batches in their random order."""
    parts: list[Tensor] = []
    held = 0
    for members in track(batches, "sampling frames"):
        for x_TD in aligned([utterances[i] for i in members], model, source):
            parts.append(x_TD[: frames - held])
            held += len(parts[-1])
        if held >= frames:
            break
    return torch.cat(parts)


def aligned(utterances: Sequence[Utterance], model: Upstream, source: Source) -> list[Tensor]:
    """Return the features (T, D) of each utterance at the model's frames."""
    rate = source.sample_rate
    wavs = [torch.from_numpy(audio.read(utterance, rate)) for utterance in utterances]
    return source.aligned(wavs, model)
