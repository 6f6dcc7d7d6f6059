"""Random cases of what runs over time: alignments (MCD, query by example), DER, clusters of frames.

Shape suffixes: T frames, D width, M coefficients, N frames of a document.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mynah.recipes.parity.metric_pair import MetricPair, Value

if TYPE_CHECKING:
    from mynah.tasks.metrics.rttm import Turn

Pairs = Iterator[tuple[Value, Value]]
Frames = NDArray[np.float64]

_SECONDS = 20.0
_PHONES = tuple(f"p{i}" for i in range(6))
_CLUSTERS = 12


def _walk(rng: np.random.Generator, frames: int, width: int) -> Frames:
    """Return frames (T, D) that move slowly, with correlated dimensions and a mean."""
    steps_TD = rng.normal(size=(frames, width))
    walk_TD = 0.3 * steps_TD.cumsum(axis=0) + rng.normal(size=(frames, width))
    turned_TD: Frames = walk_TD @ rng.normal(size=(width, width)) + 2 * rng.normal(size=width)
    return turned_TD


def mcd(count: int, seed: int) -> Pairs:
    """MCD in dB and the cost of its path, and both along librosa's path."""
    from librosa.sequence import dtw

    from mynah.tasks.metrics.align import align, distances
    from mynah.tasks.metrics.conversion import mel_cepstral_distortion

    rng = np.random.default_rng(seed)
    for _ in range(count):
        x_TM, y_TM = (0.1 * _walk(rng, int(n), 40) for n in rng.integers(1, 60, size=2))
        total, path = dtw(X=x_TM.T, Y=y_TM.T, metric="euclidean")
        squares = ((x_TM[path[:, 0]] - y_TM[path[:, 1]]) ** 2).sum(axis=1)
        theirs = float(np.mean(10 / np.log(10) * np.sqrt(2 * squares)))
        ours = mel_cepstral_distortion(x_TM, y_TM), align(distances(x_TM, y_TM)).cost
        yield ours, (theirs, float(total[-1, -1]))


def query_by_example(count: int, seed: int, *, double: bool) -> Pairs:
    """Scores of two queries in three documents at once, and dtw-python's of each pair.

    Features are normalised before, as the protocol does. In single precision they have 5
    dimensions at least: of 2, a row of distances can be so narrow that scaling it to [0, 1] shows
    the rounding of its cosines (up to 8e-6 of a score in 300 cases).
    """
    import torch

    from mynah.tasks.core.dtw import match
    from mynah.tasks.core.znorm import RunningMoments

    library = _quietly_imported("dtw")
    rng = np.random.default_rng(seed)
    for _ in range(count):
        width = int(rng.choice([2 if double else 5, 24, 80, 256]))
        lengths = (*rng.integers(5, 30, size=2), *rng.choice([1, 2, 3, *range(5, 60)], size=3))
        moments = RunningMoments()
        features = [torch.from_numpy(_walk(rng, int(n), width)) for n in lengths]
        for x_TD in features:
            moments.update(x_TD)
        normal = [moments.normalise(x_TD) for x_TD in features]
        given = normal if double else [x_TD.float() for x_TD in normal]
        exact = [x_TD.numpy().astype(np.float64) for x_TD in given]
        theirs = [_their_score(library, q, doc) for q in exact[:2] for doc in exact[2:]]
        yield match(given[:2], given[2:]).flatten().tolist(), theirs


def _their_score(library: Any, query_TD: Frames, doc_ND: Frames) -> float:
    """Return the protocol's score, in float64: scipy's distances, aligned by dtw-python."""
    from scipy.spatial.distance import cdist

    far_TN = np.exp(cdist(query_TD, doc_ND, "cosine")) - 1
    low_T1, high_T1 = far_TN.min(axis=1, keepdims=True), far_TN.max(axis=1, keepdims=True)
    far_TN = (far_TN - low_T1) / np.clip(high_T1 - low_T1, 1e-9, None)
    found = library.dtw(
        far_TN, step_pattern="asymmetric", distance_only=True, open_begin=True, open_end=True
    )
    return -float(found.normalizedDistance)


def _turns(rng: np.random.Generator, names: str, *, least: int) -> tuple[Turn, ...]:
    """Return turns of some speakers that overlap each other but not themselves."""
    from mynah.tasks.metrics.rttm import Turn

    found = []
    for name in names[: rng.integers(least, len(names) + 1)]:
        edges = np.sort(rng.uniform(0, _SECONDS, 2 * rng.integers(1, 5))).tolist()
        found += [Turn(a, b - a, name) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    return tuple(found)


def der(count: int, seed: int) -> Pairs:
    """DER and its three parts over two recordings, and pyannote.metrics's seconds added up."""
    core = _quietly_imported("pyannote.core")
    theirs = _quietly_imported("pyannote.metrics.diarization")
    from mynah.tasks.metrics.diarization import der as metric
    from mynah.tasks.metrics.diarization import der_parts, encode

    def annotation(turns: Sequence[Turn]) -> Any:
        found = core.Annotation()
        for place, turn in enumerate(turns):
            found[core.Segment(turn.start, turn.end), place] = turn.speaker
        return found

    rng = np.random.default_rng(seed)
    whole = core.Timeline([core.Segment(0, _SECONDS)])
    measure = theirs.DiarizationErrorRate(collar=0.0, skip_overlap=False)
    for _ in range(count):
        sides = [(_turns(rng, "ABCD", least=1), _turns(rng, "wxyz", least=0)) for _ in range(2)]
        refs, hyps = ([encode(pair[side]) for pair in sides] for side in (0, 1))
        details = [
            measure(*(annotation(turns) for turns in pair), uem=whole, detailed=True)
            for pair in sides
        ]
        total = sum(detail["total"] for detail in details)
        parts = [
            sum(detail[name] for detail in details) / total
            for name in ("missed detection", "false alarm", "confusion")
        ]
        ours = [one.score(refs, hyps) for one in (metric(), *der_parts())]
        yield ours, (sum(parts), *parts)


def clusters(count: int, seed: int, *, name: str) -> Pairs:
    """One of the metrics of clusters, and what scikit-learn's functions say."""
    from sklearn.metrics import mutual_info_score
    from sklearn.metrics.cluster import contingency_matrix

    from mynah.tasks.metrics import clusters as metrics

    rng = np.random.default_rng(seed)
    metric = getattr(metrics, name)(_PHONES, _CLUSTERS)
    for _ in range(count):
        frames = int(rng.integers(1, 20)) * 15
        phones_T = rng.integers(0, len(_PHONES), frames)
        phones_T[:2] = 0, 1
        clusters_T = np.where(
            rng.random(frames) < rng.random(), phones_T * 2, rng.integers(0, _CLUSTERS, frames)
        )
        refs = [" ".join(_PHONES[i] for i in part) for part in phones_T.reshape(-1, 15)]
        hyps = [" ".join(map(str, part)) for part in clusters_T.reshape(-1, 15)]
        if name == "pnmi":
            shared, phone = (mutual_info_score(phones_T, x_T) for x_T in (clusters_T, phones_T))
            theirs = float(shared / phone)
        else:  # rows of the matrix are phones
            table = contingency_matrix(phones_T, clusters_T)
            theirs = float(table.max(axis=0 if name == "phone_purity" else 1).sum() / frames)
        yield metric.score(refs, hyps), theirs


def _quietly_imported(name: str) -> ModuleType:
    """Import a package that says hello or warns when it is imported."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def _pair(
    metric: str,
    package: str,
    what: str,
    cases: Callable[[int, int], Pairs],
    *,
    allowed: float,
) -> MetricPair:
    return MetricPair(metric=metric, packages=(package,), what=what, cases=cases, allowed=allowed)


def _query_by_example(kind: str, allowed: float) -> MetricPair:
    cases = partial(query_by_example, double=kind == "float64")
    return _pair(f"qbe_dtw ({kind})", "dtw-python", "dtw, asymmetric", cases, allowed=allowed)


PAIRS = (
    _pair("mcd (alignment)", "librosa", "sequence.dtw", mcd, allowed=1e-9),
    _query_by_example("float32", 2e-6),
    _query_by_example("float64", 1e-9),
    _pair("der", "pyannote.metrics", "DiarizationErrorRate", der, allowed=1e-6),
    *(
        _pair(name, "scikit-learn", what, partial(clusters, name=name), allowed=1e-12)
        for name, what in (
            ("pnmi", "mutual_info_score"),
            ("phone_purity", "contingency_matrix"),
            ("cluster_purity", "contingency_matrix"),
        )
    ),
)
