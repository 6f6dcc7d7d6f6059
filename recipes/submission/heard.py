"""Enhancement and separation, computed again from audio: what a submission only claims.

The audio is as ``mynah predict --out`` writes it: ``ID.wav`` of enhanced speech, ``ID.s1.wav`` and so
on of separated speakers. Clean speech, sources and mixtures come from a prepared corpus.

Shape suffix: S samples.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mynah.recipes.submission.layout import MEANS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mynah.tasks.corpora.utterance import Utterance

    Wave = NDArray[np.float32]
    Values = Mapping[str, float | None]

RATE = 16_000
TASKS = ("se", "ss")
WITHIN = {"pesq": 5e-3, "stoi": 5e-4, "si_sdri": 5e-3}
"""How far a claim may be from what its audio gives: the audio was made anew, on another machine."""


def pairs(given: Sequence[str], option: str) -> dict[str, Path]:
    """Return task -> folder of ``se=FOLDER``.

    Raises:
        ValueError: another text, or a task that has no audio.
    """
    found = {}
    for text in given:
        task, mark, folder = text.partition("=")
        if not mark or not folder or task not in TASKS:
            raise ValueError(f"{option} is one of se=FOLDER and ss=FOLDER, got {text!r}")
        found[task] = Path(folder)
    return found


def means(
    task: str, ids: Sequence[str], audio: Path, corpus: Path
) -> tuple[dict[str, float], dict[str, list[str]]]:
    """Return the means of a test set's audio, and kinds of mistakes with where they are.

    Args:
        task: ``se`` or ``ss``.
        ids: of the test set.
        audio: folder of what was enhanced or separated.
        corpus: prepared, with the mixtures and what is true of them.

    Raises:
        FileNotFoundError: no such folder or corpus.
        ValueError: the packages that compute PESQ and STOI are not installed.
    """
    from mynah.tasks.core.contract import DataError
    from mynah.tasks.corpora.audio import BadAudioError
    from mynah.tasks.corpora.corpus import Corpus
    from mynah.tasks.metrics.extra import missing
    from mynah.tasks.se import PACKAGES

    if not audio.is_dir():
        raise FileNotFoundError(f"no such folder: {audio}")
    if task == "se":
        for what, package in PACKAGES.items():
            if importlib.util.find_spec(package) is None:
                raise missing(what, package)
    known = {u.id: u for u in Corpus.open(corpus).utterances()}
    labels = _labels(task, known)
    measure = _enhanced if task == "se" else _separated
    bad: dict[str, list[str]] = {}
    values: dict[str, list[float]] = {}
    for name in ids:
        if name not in known:
            bad.setdefault("utterance that the corpus has not", []).append(name)
            continue
        try:
            scores = measure(*_waves(known[name], labels, audio))
        except FileNotFoundError as error:
            bad.setdefault("audio missing", []).append(str(error))
            continue
        except (BadAudioError, DataError) as error:
            bad.setdefault("audio that cannot be scored", []).append(str(error))
            continue
        for metric, value in scores.items():
            if value is not None:
                values.setdefault(metric, []).append(value)
    return {metric: float(np.mean(of)) for metric, of in values.items()}, bad


def differing(task: str, claimed: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    """Return which claims are not what the audio gives.

    Args:
        task: ``se`` or ``ss``.
        claimed: by their names in metrics.txt.
        found: by ours.
    """
    out = []
    for name, value in claimed.items():
        metric = MEANS[name]
        if task == "ss" and metric != "si_sdri":
            continue  # s3prl's file has more than the leaderboard reads
        if metric not in found:
            out.append(f"{name} {value:.4f}, the audio gives none")
        elif abs(value - found[metric]) > WITHIN[metric]:
            out.append(f"{name} {value:.4f}, the audio gives {found[metric]:.4f}")
    return out


def _labels(task: str, known: Mapping[str, Utterance]) -> tuple[str, ...]:
    from mynah.tasks.se import CLEAN
    from mynah.tasks.ss import source_labels

    return (CLEAN,) if task == "se" else source_labels([u for u in known.values() if u.label("s1")])


def _waves(
    utterance: Utterance, labels: Sequence[str], audio: Path
) -> tuple[Wave, list[Wave], Wave]:
    """Return estimates (sources, S), references and mixture of an utterance.

    Raises:
        FileNotFoundError: a file is missing.
        BadAudioError: one that is damaged, of another rate or of another length.
        DataError: the corpus does not say what is true.
    """
    from mynah.recipes.listening import utterance_of
    from mynah.tasks.core.sources import source
    from mynah.tasks.corpora.audio import BadAudioError, read

    mixture_S = read(utterance, RATE)
    estimates = []
    for label in labels:
        end = "wav" if len(labels) == 1 else f"{label}.wav"
        path = audio / f"{utterance.id}.{end}"
        if not path.is_file():
            raise FileNotFoundError(path.name)
        heard = utterance_of(path, name=utterance.id)
        if heard.sample_rate != RATE:
            raise BadAudioError(f"{path.name}: {heard.sample_rate} Hz, not {RATE}")
        wav_S = read(heard, RATE)
        if len(wav_S) != len(mixture_S):
            raise BadAudioError(f"{path.name}: {len(wav_S)} samples, not {len(mixture_S)}")
        estimates.append(wav_S)
    references = [read(source(utterance, label), RATE) for label in labels]
    return np.stack(estimates), references, mixture_S


def _enhanced(estimates: Wave, references: Sequence[Wave], mixture: Wave) -> Values:
    from mynah.tasks.core.masking import separated
    from mynah.tasks.metrics.speech_quality import pesq, stoi
    from mynah.tasks.se import scored

    (estimate,), (clean,) = estimates, references

    def of(function: Callable[..., float], lowest: float) -> float | None:
        return scored(lambda x: function(x, clean, sample_rate=RATE), estimate, clean, lowest)

    found = separated(estimates, references, mixture)
    return {
        "pesq": of(pesq, 1.0),
        "stoi": of(stoi, 0.0),
        "si_sdri": None if found is None else found.si_sdri,
    }


def _separated(estimates: Wave, references: Sequence[Wave], mixture: Wave) -> Values:
    from mynah.tasks.core.masking import separated

    found = separated(estimates, references, mixture)
    return {"si_sdri": None if found is None else found.si_sdri}
