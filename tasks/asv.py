"""ASV, speaker verification: whether two utterances are of one speaker, none of them ever heard.

Official corpus: VoxCeleb1. Trained on the 1211 speakers of its dev part, tested on the 37 720 pairs of
``voxceleb1_test_v2.txt`` (its ``trials.tsv``), whose 40 speakers are none of those. Label:
``speaker``. Parts are the corpus's own or made, disjoint by speaker. Where the corpus has no list
of trials, or parts are made, the trials are drawn by hash: per test speaker up to 100 pairs of its
utterances and as many with others', half of them of its own gender (``tasks.core.pairs``); these
utterances last 0.5 s at least.

An utterance's embedding is what the first of the head's last two layers gives, scaled to length 1;
a trial's score is the cosine of both. The head is trained to tell the training speakers apart
(additive-margin softmax, scale 30, margin 0.4), on crops of at most 8 s; dev and test are whole.

``superb`` repeats s3prl's recipe (``downstream/sv_voxceleb1``): AdamW with weight decay 0.01,
batches of 10 x 5, gradients clipped at 1000, 200 000 steps; training utterances of 2 s or less are
left out; **steps and learning rate are chosen by the lowest EER on the test trials themselves**, one
in 20 000 steps, as its ``test_expdir.sh`` does: dev is test, and the score is too good for that. All
speakers that are not tested are trained on. s3prl draws a crop anew at each access; here 8 crops of
each longer utterance are enumerated, so that they can be extracted once. Its mean and deviation of
a padded utterance take in one frame of padding; ours do not. Audio is heard 3 dB softer and without
its silences (sox: of 0.1 s and more below 0.1 %; ``tasks.corpora.hearing``): lengths are of what is
left, and an utterance of which nothing is left is left out.

``fixed`` differs in: audio is heard as it was recorded, silences and all; dev is speakers held out
of training (the corpus's dev part, else about 5 % of the training speakers, 20 at least where that
is no more than a fifth of them) with trials of their own, so that nothing is chosen on test;
training utterances need 0.5 s, because 2 s would leave nothing of corpora of short ones; batches of
50 of like duration, 4 crops; training stops when dev no longer improves, at most 20 000 steps.

The ``small`` head has layers of 128 instead of 512, the last frame layer of 384 instead of 1500.

Score: ``eer``, where misses and false alarms are equally frequent among the trials; ``min_dcf``, the
lowest normalised cost with a target prior of 0.01 and costs of 1, is not part of SUPERB. Intervals
resample the speakers of the enrolment.

Shape suffixes: K heads, B batch, C training speakers, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mynah.downstream.core.amsoftmax import am_softmax
from mynah.downstream.xvector import MIN_FRAMES, XVector
from mynah.tasks.core.contract import (
    Data,
    DataError,
    Decoded,
    Facts,
    Protocol,
    Rows,
    Spec,
    Split,
    Task,
)
from mynah.tasks.core.pairs import check_trials, compared, make_trials
from mynah.tasks.core.splits import (
    TEST_SHARE,
    Parts,
    as_splits,
    carve,
    check_disjoint,
    first_few,
    given,
    labelled,
)
from mynah.tasks.corpora import hearing
from mynah.tasks.corpora.official.core.trials import Trial
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.bootstrap import MIN_UNITS
from mynah.tasks.metrics.detection import NONTARGET, TARGET, eer, min_dcf
from mynah.tasks.metrics.metric import Measure

SPEC = Spec(
    name="asv",
    problem="whether two utterances are of one speaker",
    resolution="frame",
    labels=("speaker",),
    metric="eer",
    higher_is_better=False,
    split_unit="speaker",
    version=2,
    licence="VoxCeleb1: CC-BY 4.0 (metadata)",
    citation="Nagrani et al. 2017, arXiv:1706.08612; SUPERB: Yang et al. 2021, arXiv:2105.01051",
)

SUPERB_SECONDS, FIXED_SECONDS = 2.0, 0.5
DEV_SHARE, DEV_SPEAKERS = 0.05, 20
SMALL = {"width": 128, "pooled": 384}


def speaker(utterance: Utterance) -> str:
    """Return the speaker of an utterance that has one."""
    return str(utterance.speaker)


class SpeakerVerification(Task):
    """Speaker verification under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": Protocol(
            optimizer="adamw", weight_decay=0.01, batch_size=50, accumulate=1, clip=1e3,
            steps=20_000, eval_every=250, patience=12, sampler="bucket", crop_seconds=8.0,
        ),
        "superb": Protocol(
            optimizer="adamw", weight_decay=0.01, batch_size=10, accumulate=5, clip=1e3,
            steps=200_000, eval_every=20_000, crop_seconds=8.0, crops=8, ties="first",
            hearing="sounds",
        ),
    }  # fmt: skip
    USES_TRIALS = True
    HAS_SMALL_HEAD = True
    DEV_BY = "infer"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._listed: tuple[Trial, ...] = ()
        self._index: dict[str, int] = {}
        self.trials: dict[str, tuple[Trial, ...]] = {}
        """What is scored of ``dev`` and of ``test``."""

    # -- data -------------------------------------------------------------------------------

    def take_trials(self, trials: Sequence[Trial]) -> None:
        """Take the corpus' own trials of its test part; before :meth:`load`."""
        self._listed = tuple(trials)

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by speaker, draw trials and check; see the contract's :meth:`Task.load`.

        Raises:
            DataError: besides what is said there: trials of utterances that are not in test, or
                that contradict the speakers; too few speakers.
            ValueError: see :meth:`heard`.
        """
        kept = labelled(utterances, lambda u: u.speaker, task="asv", name="speaker")
        superb = self.protocol_name == "superb"
        kept, skipped = hearing.heard(kept, self.protocol.hearing)
        parts, note = self._parts(kept, seed)
        parts["train"] = self._long_enough("train", parts["train"], skipped)
        listed = self._listed if self.splits == "corpus" else ()
        if listed:
            check_trials(listed, parts["test"])
            self.trials = {"test": listed}
        else:
            parts["test"] = self._long_enough("test", parts["test"], skipped)
            self.trials = {"test": tuple(make_trials(parts["test"], seed=seed, name="test"))}
        if not superb:
            parts["dev"] = self._long_enough("dev", parts["dev"], skipped)
            self.trials["dev"] = tuple(make_trials(parts["dev"], seed=seed, name="dev"))
            parts["dev"] = compared(parts["dev"], self.trials["dev"])
        parts["test"] = compared(parts["test"], self.trials["test"])
        checked = {name: parts[name] for name in parts if name != "dev" or not superb}
        check_disjoint(checked, speaker, unit_name="speaker")
        classes = sorted({speaker(u) for u in parts["train"]})
        if len(classes) < 2:
            raise DataError(f"train has only one speaker to tell apart: {first_few(classes)}")
        if superb:
            parts["dev"], self.trials["dev"] = parts["test"], self.trials["test"]
        self._index = {name: i for i, name in enumerate(classes)}
        self.data = Data(
            folds={"": as_splits(parts)},
            classes=tuple(classes),
            skipped=skipped,
            notes=(note, *self._say_trials(bool(listed))),
        )
        return self.data

    def _parts(self, kept: Sequence[Utterance], seed: int) -> tuple[Parts, str]:
        """Return train, dev (none yet for ``superb``) and test, and where they come from."""
        parts = given(kept) if self.splits == "corpus" else None
        note = "splits are the corpus's own"
        made = parts is None
        if parts is None:
            count = len({speaker(u) for u in kept})
            rest, test = carve(
                kept, speaker, TEST_SHARE, f"test-{seed}", least=max(2, min(MIN_UNITS, count // 4))
            )
            parts = {"train": rest, "dev": [], "test": test}
            note = "splits were made here, disjoint by speaker"
        if self.protocol_name == "superb":
            parts["train"], parts["dev"] = parts["train"] + parts["dev"], []
        elif not parts["dev"]:
            count = len({speaker(u) for u in parts["train"]})
            if count < 4:
                raise DataError(
                    "train and dev need two speakers each, and "
                    f"{count} speakers are left for them beside test: give more speakers"
                    + ("" if made else ", name a dev part, or let the splits be made")
                )
            parts["train"], parts["dev"] = carve(
                parts["train"],
                speaker,
                DEV_SHARE,
                f"dev-{seed}",
                least=max(2, min(DEV_SPEAKERS, count // 5)),
            )
            if not made:
                note = "test is the corpus's own, dev was carved out of its train by speaker"
        return parts, note

    def _long_enough(
        self, name: str, utterances: Sequence[Utterance], skipped: dict[str, str]
    ) -> list[Utterance]:
        """Return the utterances of a part that are not too short to be used, and note the others.

        Raises:
            DataError: none is left.
        """
        if self.protocol_name == "superb" and name == "train":
            wanted = f"longer than {SUPERB_SECONDS:g} s"
            kept = [u for u in utterances if u.duration > SUPERB_SECONDS]
        else:
            wanted = f"{FIXED_SECONDS:g} s long or longer"
            kept = [u for u in utterances if u.duration >= FIXED_SECONDS]
        names = {u.id for u in kept}
        short = [u.id for u in utterances if u.id not in names]
        if not kept:
            raise DataError(
                f"no utterance of {name} is {wanted}: {first_few(short) or 'none at all'}"
            )
        skipped.update((i, f"it is not {wanted}, as those of {name} must be") for i in short)
        return kept

    def _say_trials(self, listed: bool) -> tuple[str, ...]:
        def count(name: str) -> str:
            trials = self.trials[name]
            targets = sum(t.target for t in trials)
            return f"{len(trials)} trials of {name}, {targets} of them target trials"

        source = "the corpus's own" if listed else "drawn here"
        test = f"{count('test')}, {source}"
        if self.protocol_name == "superb":
            return (
                test,
                "superb: steps and learning rate are chosen on the test trials themselves",
            )
        return (test, f"{count('dev')}, drawn here")

    def bind(self, facts: Facts) -> None:
        """Take the upstream's facts.

        Raises:
            DataError: utterances of dev or test are shorter than the head's 15 frames.
        """
        super().bind(facts)
        least = MIN_FRAMES * facts.frame_seconds
        for _, *others in self.loaded.folds.values():
            for part in others:
                short = [f"{u.id} ({u.duration:.2f} s)" for u in part.utterances
                         if u.duration < least]  # fmt: skip
                if short:
                    raise DataError(_too_short(part.name, least, short))

    # -- training ---------------------------------------------------------------------------

    def head(self, dim: int) -> nn.Module:
        """Return the x-vector with a column for each training speaker."""
        return XVector(dim, self.outputs, **(SMALL if self.small else {}))

    def too_short(self, utterance: Utterance, frames: int) -> str | None:
        """Return a reason where the head's receptive field is longer than the utterance."""
        if frames >= MIN_FRAMES:
            return None
        return f"{frames} frames, the head needs {MIN_FRAMES}"

    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return additive-margin softmax losses (K, B) of cosines (K, B, C)."""
        target_B = torch.tensor([self._index[speaker(u)] for u in batch], device=outputs.device)
        return am_softmax(outputs, target_B.expand(len(outputs), -1))

    def dev_losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return zeros (K, B): nobody in dev has a column; NaN where a head has diverged."""
        return outputs.sum(dim=-1) * 0.0

    # -- scoring ----------------------------------------------------------------------------

    def decode(
        self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> list[Decoded]:
        """Return each embedding of (B, D) as an array (D,)."""
        return list(outputs.detach().float().cpu().numpy())

    def infer(
        self, probe: nn.Module, features: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> list[Decoded]:
        """Return each utterance's embedding, an array (D,) of length 1.

        Raises:
            DataError: an utterance has fewer than the head's 15 frames.
        """
        counted = zip(batch, lengths_B.tolist(), strict=True)
        short = [f"{u.id} ({n} frames)" for u, n in counted if n < MIN_FRAMES]
        if short:
            raise DataError(_too_short("what is embedded", None, short))
        mixed_BTD = probe.get_submodule("featurizer")(features)
        head = probe.get_submodule("head")
        assert isinstance(head, XVector)
        return self.decode(head.embed(mixed_BTD, lengths_B), lengths_B, batch)

    def reference(self, utterance: Utterance) -> str:
        """Return the speaker."""
        return speaker(utterance)

    def rows(self, split: Split, decoded: Sequence[Decoded]) -> Rows:
        """Return a row for each trial: whether it is a target trial, and the cosine."""
        at = {u.id: i for i, u in enumerate(split.utterances)}
        vectors_ND = np.stack([np.asarray(vector, dtype=np.float64) for vector in decoded])
        trials = self.trials[split.name]
        pairs = [(at[t.enrolment], at[t.test]) for t in trials]
        return Rows(
            ids=[f"{t.enrolment}_{t.test}" for t in trials],
            units=[speaker(split.utterances[a]) for a, _ in pairs],
            unit="speaker",
            references=[TARGET if t.target else NONTARGET for t in trials],
            predictions=[f"{vectors_ND[a] @ vectors_ND[b]:.9g}" for a, b in pairs],
        )

    def metrics(self) -> tuple[Measure, ...]:
        """Return EER and minDCF."""
        return (eer(), min_dcf())


def _too_short(name: str, seconds: float | None, short: Sequence[str]) -> str:
    least = f"{MIN_FRAMES} frames" + ("" if seconds is None else f" ({seconds:.2f} s)")
    return (
        f"the head needs {least} of each utterance; shorter in {name}: {first_few(short)}; leave "
        "them and their trials out of the corpus, or take an upstream with more frames a second"
    )


TASK = SpeakerVerification
