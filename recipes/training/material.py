"""What a pretraining run hears: utterances of prepared corpora, and who speaks where that matters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mynah.recipes.training.config import Recipe
    from mynah.recipes.training.values import TrainConfig
    from mynah.tasks.corpora.utterance import Utterance
    from mynah.upstream.core.contract import Upstream


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a run trains on.

    Attributes:
        utterances: in order.
        key: names and versions of the corpora, for the identity of the run.
        details: counts, for people.
    """

    utterances: list[Utterance]
    key: Mapping[str, Any]
    details: Mapping[str, Any]


def gather(
    folders: Sequence[Path],
    split: str | None,
    min_seconds: float,
    *,
    speakers: Sequence[str] = (),
) -> Material:
    """Collect the utterances to train on.

    Args:
        folders: prepared corpora.
        split: name of a split, ``all``, or None for ``train`` where a corpus names splits.
        min_seconds: shorter ones are left out and counted.
        speakers: whose utterances are used; none for everybody's.

    Raises:
        FileNotFoundError: a folder holds no prepared corpus.
        LookupError: a corpus lacks the split.
        ValueError: nothing is left, or a corpus is given twice.
    """
    from mynah.tasks.corpora.corpus import Corpus

    corpora = [Corpus.open(folder) for folder in folders]
    if len({c.folder.resolve() for c in corpora}) != len(corpora):
        raise ValueError("a --corpus is given twice")
    chosen: list[Utterance] = []
    key: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    for corpus in corpora:
        wanted = split or ("train" if corpus.splits else "all")
        utterances = corpus.utterances(None if wanted == "all" else wanted)
        if speakers:
            utterances = [u for u in utterances if u.speaker in speakers]
        long = [u for u in utterances if u.duration >= min_seconds]
        if len(corpora) > 1:
            long = [replace(u, id=f"{corpus.name}/{u.id}") for u in long]
        chosen += long
        key.append({"corpus": corpus.name, "version": corpus.version, "split": wanted})
        if speakers:
            key[-1]["speakers"] = sorted(speakers)
        details.append(
            {
                "corpus": corpus.name,
                "folder": str(corpus.folder),
                "split": wanted,
                "utterances": len(long),
                "hours": round(sum(u.duration for u in long) / 3600, 4),
                "speakers": len({u.speaker for u in long if u.speaker is not None}),
                "too_short": len(utterances) - len(long),
                "unusable": len(corpus.skipped),
            }
        )
    absent = sorted(set(speakers) - {u.speaker for u in chosen})
    if absent:
        raise ValueError(
            f"no utterance of {', '.join(absent)} lasts {min_seconds:g} s or more: name speakers of "
            "the corpus"
        )
    if not chosen:
        raise ValueError(
            f"no utterance lasts {min_seconds:g} s or more: lower train.min_seconds or add audio"
        )
    named = {f"{number}": entry for number, entry in enumerate(key)}
    return Material(utterances=chosen, key=named, details={"corpora": details})


def fetch_speakers(recipe: Recipe, material: Material) -> tuple[Recipe, list[str] | None]:
    """Return the recipe that knows the speakers, and those, where the family asks who speaks.

    Raises:
        BadDataError: utterances without a speaker.
    """
    from mynah import upstream
    from mynah.recipes.errors import BadDataError

    family = upstream.get(recipe.family).MODEL
    if not family.needs_speakers:
        return recipe, None
    nobody = [u.id for u in material.utterances if u.speaker is None]
    if nobody:
        raise BadDataError(
            f"{recipe.family} learns who speaks, and {len(nobody)} utterances do not say it, as "
            f"{', '.join(nobody[:3])}: prepare the corpus with speakers"
        )
    speakers = sorted({str(u.speaker) for u in material.utterances})
    return replace(recipe, model=family.adopt_speakers(recipe.model, speakers)), speakers


def usable(model: Upstream, material: Material, train: TrainConfig) -> tuple[Material, int]:
    """Return what a model's objective has a use for, and how many utterances are left out.

    Batches can then be made so that none of them ends a run: see ``Upstream.least_items`` and
    ``Upstream.least_frames``.

    Raises:
        ValueError: utterances, crops or batches are too few or too short for the objective.
    """
    from mynah.tasks.corpora.audio import num_samples

    rate, least = model.sample_rate, model.least_frames
    crop = model.num_frames(max(1, int(train.crop_seconds * rate)))
    if crop < least:
        raise ValueError(
            f"{model.name} learns from utterances of {least} frames or more, and train.crop_seconds="
            f"{train.crop_seconds:g} leaves {crop}: raise it"
        )
    kept = [u for u in material.utterances if model.num_frames(num_samples(u, rate)) >= least]
    if len(kept) < model.least_items:
        what = f" of {least} frames or more" if least > 1 else ""
        raise ValueError(
            f"{model.name} learns from {model.least_items} or more utterances{what} at a time, and "
            f"there are {len(kept)}: add audio"
        )
    longest = min(max(u.duration for u in kept), train.crop_seconds)
    if model.least_items > 1 and model.least_items * longest > train.batch_seconds:
        raise ValueError(
            f"{model.name} learns from {model.least_items} or more utterances at a time, and "
            f"train.batch_seconds={train.batch_seconds:g} does not hold so many of {longest:g} s: "
            f"raise it to {model.least_items * longest:g} or more, or lower train.crop_seconds"
        )
    return replace(material, utterances=kept), len(material.utterances) - len(kept)


def look_at(model: Upstream, material: Material) -> None:
    """Let a model measure some utterances before its first step, where it wants that.

    Raises:
        BadAudioError: one cannot be read.
    """
    measure = getattr(model, "measure", None)
    if measure is None:
        return
    import torch

    from mynah.tasks.corpora.audio import read

    def reader(u: Utterance) -> Any:
        return lambda: torch.from_numpy(read(u, model.sample_rate))

    measure([reader(u) for u in material.utterances])
