"""Where the files of a submission lie, and which task each is of.

Source: s3prl/submit/submit.py and superbbenchmark/website-react, backend/calculate.py. OOD-ASR and
voice conversion are not taken by the leaderboard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

ROOT = "predict/"
Form = Literal["text", "label", "score", "intent", "terms", "activity", "means", "translation"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file of a submission, or one folder of them.

    Attributes:
        task: whose predictions it holds.
        path: below ``predict/``; ``{fold}`` is a number from 1.
        form: how predictions are written.
        lm: of decoding with a language model.
    """

    task: str
    path: str
    form: Form
    lm: bool = False


PARTS = (
    Part(task="pr", path="pr_public/predict.ark", form="text"),
    Part(task="asr", path="asr_public/predict.ark", form="text"),
    Part(task="asr", path="asr_lm_public/predict.ark", form="text", lm=True),
    Part(task="ks", path="ks_public/predict.txt", form="label"),
    Part(task="sid", path="sid_public/predict.txt", form="label"),
    Part(task="asv", path="sv_public/predict.txt", form="score"),
    Part(task="ic", path="ic_public/predict.csv", form="intent"),
    Part(task="er", path="er_fold{fold}_public/predict.txt", form="label"),
    Part(task="qbe", path="qbe_public/benchmark.stdlist.xml", form="terms"),
    Part(task="sf", path="sf_public/predict.ark", form="text"),
    Part(task="sd", path="sd_public", form="activity"),
    Part(task="se", path="se_public/metrics.txt", form="means"),
    Part(task="ss", path="ss_public/metrics.txt", form="means"),
    Part(task="st", path="st_public/predict.tsv", form="translation"),
)
FOLDS = 5  # of emotion recognition: IEMOCAP's sessions
REFUSED = {
    "ood_asr": "the leaderboard does not take OOD-ASR",
    "vc": "the leaderboard does not take voice conversion",
}
MEANS = {"pesq": "pesq", "stoi": "stoi", "si_sdr": "si_sdri"}
"""Name in metrics.txt -> ours; s3prl writes the *improvement* of SI-SDR as ``si_sdr``."""
SIZES = {
    "pr": 2620, "asr": 2620, "ks": 3081, "sid": 8251, "asv": 37_720, "ic": 3793, "er": 5531,
    "sf": 2800, "sd": 3002, "se": 824, "ss": 3000,
}  # fmt: skip
"""How many rows the leaderboard's own test set of a task has, where that is published."""
SHIFT = "sd_public/frame_shift"
_ACTIVITY = re.compile(r"sd_public/(?:scoring/predictions/)?(?P<id>[^/]+)\.h5")
_FOLD = re.compile(r"er_fold(?P<fold>\d+)_public/predict\.txt")


def place(name: str) -> tuple[Part, str] | None:
    """Return the part that a member belongs to, and its fold or recording ("" for neither).

    Args:
        name: of the member, from the top of the zip.
    """
    if not name.startswith(ROOT):
        return None
    below = name.removeprefix(ROOT)
    if below == SHIFT:
        return by_task("sd"), ""
    if found := _ACTIVITY.fullmatch(below):
        return by_task("sd"), found["id"]
    if found := _FOLD.fullmatch(below):
        return by_task("er"), found["fold"]
    for part in PARTS:
        if part.path == below:
            return part, ""
    return None


def key(task: str, name: str) -> str:
    """Return what an utterance is called in the files of a task.

    Keyword spotting's are the names of folder and file, ``yes-0a7c2a8d_nohash_0.wav``, while our ids
    have no ending; everywhere else s3prl has the same ids. The server fails the whole task at one id
    that it does not know.

    Args:
        task: whose.
        name: our id.
    """
    return f"{name}.wav" if task == "ks" and not name.endswith(".wav") else name


class OfATest(Protocol):
    """A result, or a test set: of a task on a corpus, some of which could not be used."""

    @property
    def task(self) -> str:
        """Name of the task."""

    @property
    def corpus(self) -> str:
        """Name of the corpus."""

    @property
    def skipped(self) -> Mapping[str, str]:
        """Utterances left out, id -> reason."""


def size_differs(result: OfATest, rows: int) -> str | None:
    """Return how a test set's size differs from that of the leaderboard's; None where it does not."""
    wanted = SIZES.get(result.task)
    if wanted in (None, rows):
        return None
    return f"{rows} rows of {result.corpus}, the leaderboard has {wanted}"


def doubts(entries: Sequence[tuple[str, OfATest, int]]) -> list[str]:
    """Return what may keep test sets from being whole, or the leaderboard's.

    Args:
        entries: (what to call it, result, rows of its test set).
    """
    sizes = {name: size_differs(result, rows) for name, result, rows in entries}
    foreign = ", ".join(f"{name} ({text})" for name, text in sizes.items() if text)
    out = [f"not the leaderboard's test sets: {foreign}"] if foreign else []
    for name, result, _ in entries:
        if result.skipped:  # of any split: results do not say of which
            first = ", ".join(sorted(result.skipped)[:3])
            out.append(
                f"{name}: {len(result.skipped)} utterances of the corpus could not be used ({first})"
            )
    return out


def by_task(task: str, *, lm: bool = False) -> Part:
    """Return the part of a task."""
    return next(part for part in PARTS if part.task == task and part.lm == lm)
