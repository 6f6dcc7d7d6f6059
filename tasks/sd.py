"""SD, speaker diarization: who speaks when, several at once if they do.

Official corpus: Libri2Mix (16 kHz, ``max``) of LibriSpeech train-clean-100, dev-clean and test-clean:
13 901, 3 014 and 3 002 recordings of two speakers. Labels: the tier ``speakers`` of timed turns
(``mynah prepare librimix``, or ``mynah mix diarization``), times in seconds from the start of the
utterance, symbols the names of the speakers. The head has as many outputs as a training recording has
speakers at most (two in the protocol, six at most here).

Splits share no speaker; made splits give whole groups of speakers that are heard together to one
part. Names that say nothing beyond their recording (as many in the whole corpus as in one recording:
A and B in all of them) are no speakers that could be shared; recordings are then kept apart.

Labels: who talks in each frame of the upstream's stride; a turn is on the frames from its start to
its end, both rounded. They are compared with the outputs on the frames that both have, and the last
output stands for a last frame that the upstream lacks (s3prl repeats the last feature instead). Loss:
binary cross-entropies of the best assignment of outputs to speakers over an utterance, summed over
frames, averaged over speakers, and divided by the mean number of frames of a training utterance
(s3prl divides a batch by the number of its own frames).

``superb`` repeats s3prl's recipe (``downstream/diarization``, read in version 0.4.18):

- train, dev and test are cut into chunks of 2000 frames and a rest, 20 or 40 s by the stride;
- in a chunk that a turn spans from before its start to after its end that speaker is silent;
- Adam, batches of 8, four per update, 30 000 updates, dev every 500; the checkpoint with the fewest
  wrong frames on dev is chosen: mean over chunks, at a threshold of 0.5, speakers in the order that
  has the lowest loss, and all frames wrong in a chunk where nobody speaks. (s3prl calls it accuracy.)
- on test each chunk is heard by itself, and the speakers of its outputs are taken to be those of the
  chunk before; what the head says of the padding of a rest counts;
- turns are made with thresholds 0.3, 0.4, 0.5, 0.6, 0.7 and medians over 1 and 11 frames, times are
  rounded to 0.01 s, and the lowest DER *on test* of these ten is the score.

``fixed`` differs in:

- dev and test recordings are heard whole, so that no speaker is mistaken between chunks; training
  recordings longer than 2000 frames are cut into chunks of like length, none of a few frames;
- no label is lost in a chunk;
- threshold and median are chosen on dev, with each checkpoint, and used on test as they are. Medians
  are 0, 0.11, 0.22 and 0.44 s (an odd number of frames, rounded down): in frames they would be another
  filter for another stride. The choice counts frames; the score is exact;
- the checkpoint with the lowest DER on dev is chosen, which is what is asked for;
- every utterance is seen once per epoch, in batches of 32 of like duration; training stops when dev
  no longer improves, at most 20 000 updates; ties on dev are told apart by dev loss.

Small head: LSTM of 128 units.

Score: DER over all recordings, overlaps scored, no collar; and its parts missed speech, false alarm
and confusion. A row is a recording, its turns as text.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mynah.downstream.diarizer import Diarizer
from mynah.tasks.core.activities import (
    array,
    best_setting,
    frame_rows,
    head_of,
    lowest_setting,
    mark,
    marked,
    targets,
)
from mynah.tasks.core.apart import conversations_apart
from mynah.tasks.core.chunks import Chunks
from mynah.tasks.core.contract import (
    Data,
    Decoded,
    Facts,
    Presented,
    Protocol,
    Rows,
    Spec,
    Split,
    Task,
)
from mynah.tasks.core.pit import MOST, pit_bce
from mynah.tasks.core.splits import as_splits, labelled
from mynah.tasks.core.turns import (
    TIER,
    Grid,
    Setting,
    check_turns,
    labels,
    names,
    to_hundredths,
    to_turns,
    true_turns,
)
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.diarization import der, der_parts, encode
from mynah.tasks.metrics.mean import mean_metric
from mynah.tasks.metrics.metric import Metric
from mynah.tasks.metrics.rttm import Turn

log = logging.getLogger(__name__)

SPEC = Spec(
    name="sd",
    problem="who speaks when, several at once if they do",
    resolution="frame",
    labels=(f"{TIER} (timed)",),
    metric="der",
    higher_is_better=False,
    split_unit="speaker",
    resample_by="recording",
    version=1,
    licence="Libri2Mix, of LibriSpeech: CC-BY 4.0",
    citation="Cosentino et al. 2020, arXiv:2005.11262; SUPERB: Yang et al. 2021, arXiv:2105.01051",
)

CHUNK = 2000  # frames
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
MEDIAN_FRAMES = (1, 11)
MEDIAN_SECONDS = (0.0, 0.11, 0.22, 0.44)
SMALL = 128
FRAME_ERROR = mean_metric(
    "frame_error", higher_is_better=False, options=f"chunk:{CHUNK}|order:loss|threshold:0.5"
)


class SpeakerDiarization(Task):
    """Speaker diarization under one protocol.

    Attributes:
        setting: threshold and median filter of the last head that was scored, or of the one that was
            restored.
    """

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": Protocol(
            batch_size=32, accumulate=1, clip=1.0, steps=20_000, eval_every=250, patience=12,
            sampler="bucket",
        ),
        "superb": Protocol(
            batch_size=8, accumulate=4, clip=1.0, steps=30_000, eval_every=500, ties="first",
        ),
    }  # fmt: skip
    HAS_SMALL_HEAD = True
    DEV_BY = "infer"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.setting = Setting(0.5, 1)
        self._whole: tuple[Split, ...] = ()
        self._chunks: Chunks | None = None
        self._filled: frozenset[str] = frozenset()
        self._mean_frames = 1.0
        self._chosen: dict[str, Setting] = {}

    # -- data -------------------------------------------------------------------------------

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by speaker and check; see :meth:`~mynah.tasks.core.contract.Task.load`."""
        kept = labelled(
            utterances,
            lambda u: TIER if u.intervals.get(TIER) else None,
            task="sd",
            name=f"{TIER!r} (timed turns of speakers)",
        )
        check_turns(kept)
        parts, speakers, notes = conversations_apart(
            kept, names, most=MOST, seed=seed, take_given=self.splits == "corpus"
        )
        self.data = Data(
            folds={"": as_splits(parts)}, classes=_classes(speakers), notes=tuple(notes)
        )
        self._whole = self.data.folds[""]
        return self.data

    def bind(self, facts: Facts) -> None:
        """Take the upstream's stride, and cut recordings into chunks of its frames.

        Training utterances are chunks from here on, under ``superb`` those of dev and test too.
        """
        super().bind(facts)
        if not self._whole:
            return
        superb = self.protocol_name == "superb"
        self._chunks = Chunks(self.grid, CHUNK, even=not superb, hole=superb)
        train, dev, test = (
            self._chunks.of(split) if superb or split.name == "train" else split
            for split in self._whole
        )
        self.data = dataclasses.replace(self.loaded, folds={"": (train, dev, test)})
        whole = {u.id for u in self._whole[2].utterances}
        self._filled = frozenset(u.id for u in test.utterances if u.id not in whole)
        frames = [self.grid.whole(u.duration) for u in train.utterances]
        self._mean_frames = sum(frames) / len(frames)

    @property
    def grid(self) -> Grid:
        """The frames of the upstream in time."""
        return Grid(self.facts.stride, self.facts.sample_rate)

    # -- training ---------------------------------------------------------------------------

    def head(self, dim: int) -> nn.Module:
        """Return LSTM D -> 512 and Linear 512 -> S at every frame."""
        if self.small:
            return Diarizer(dim, self.outputs, hidden=SMALL)
        return Diarizer(dim, self.outputs)

    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return permutation-invariant cross-entropies (K, B) of logits (K, B, T, S)."""
        target_BTS, valid_B = targets(batch, lengths_B, outputs.shape[2:], self.grid)
        sums_KB, _ = pit_bce(outputs, target_BTS, valid_B)
        return sums_KB / self._mean_frames

    # -- decoding ---------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the number of speakers, threshold and median filter (frames)."""
        return {"speakers": self.outputs, **self.setting._asdict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the number of speakers, threshold and median filter."""
        self.data = Data(folds={}, classes=_classes(int(state["speakers"])))
        self.setting = Setting(float(state["threshold"]), int(state["median"]))

    def decode(
        self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> list[NDArray[np.float32]]:
        """Return how likely each speaker talks in each frame, (T, S), of logits (B, T, S).

        T is the number of whole frames in the utterance, whatever the upstream gives.
        """
        out = []
        for logits_TS, length, u in zip(outputs.sigmoid(), lengths_B.tolist(), batch, strict=True):
            filled = u.id in self._filled
            wanted = CHUNK if filled else self.grid.whole(u.duration)
            given_TS = (logits_TS if filled else logits_TS[:length])[:wanted]
            last_TS = given_TS[-1:].expand(wanted - len(given_TS), -1)
            out.append(torch.cat([given_TS, last_TS]).detach().float().cpu().numpy())
        return out

    def infer(
        self, probe: nn.Module, features: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> list[Decoded]:
        """Return activities as :meth:`decode`, each with the mark of the head."""
        if any(u.id in self._filled for u in batch):
            # s3prl fills up the rest of a recording, and hears and scores what it filled in
            features = F.pad(features, (0, 0, 0, max(0, CHUNK - features.shape[2])))
        own = mark(probe)
        said = self.decode(probe(features, lengths_B), lengths_B, batch)
        return [marked(activity_TS, own) for activity_TS in said]

    def turns(self, decoded: Decoded) -> list[Turn]:
        """Return the turns of a recording of which a head said ``decoded``.

        Speakers are ``speaker1`` ... in order of the head's outputs; times are seconds from the start
        of the utterance.

        Raises:
            TypeError: text instead of activities.
        """
        return to_turns(array(decoded), self.setting, self.grid)

    def present(self, decoded: Decoded, utterance: Utterance) -> Presented:
        """Return who speaks when, by the setting that was chosen with the head."""
        turns = self.turns(decoded)
        spans = [{"speaker": t.speaker, "start": t.start, "end": t.end} for t in turns]
        lines = [f"{t.speaker} {t.start:.2f}-{t.end:.2f}" for t in turns]
        return Presented(
            text=", ".join(lines) or "nobody speaks",
            json={"turns": spans, **self.setting._asdict()},
            rttm=turns,
        )

    # -- scoring ----------------------------------------------------------------------------

    def reference(self, utterance: Utterance) -> str:
        """Return the true turns as text."""
        return encode(true_turns(utterance))

    def rows(self, split: Split, decoded: Sequence[Decoded]) -> Rows:
        """Return recordings, their true turns and those that the activities make.

        On dev ``superb`` scores the frames of chunks instead. Where turns are made, what they are
        made with is chosen: by ``superb`` on every split, by ``fixed`` on dev only.
        """
        activities = [array(one) for one in decoded]
        if self.protocol_name == "superb" and split.name == "dev":
            return frame_rows(split, activities, speakers=self.outputs, grid=self.grid)
        recordings: Sequence[Utterance] = split.utterances
        if self._chunks is not None:
            recordings, activities = self._chunks.joined(recordings, activities)
        superb = self.protocol_name == "superb"
        if superb:
            truths = [true_turns(u) for u in recordings]
            self.setting = lowest_setting(activities, truths, self._settings(), self.grid)
        elif split.name == "dev":
            truth = [labels(u, self.outputs, self.grid) for u in recordings]
            self.setting = best_setting(activities, truth, self._settings())
            self._chosen[head_of(decoded)] = self.setting
        elif (head := head_of(decoded)) and self._chosen:
            self.setting = self._chosen[head]  # dev came first
        log.info("sd: threshold %g, median over %d frames on %s", *self.setting, split.name)
        ids = [u.id for u in recordings]
        made = [to_turns(activity_TS, self.setting, self.grid) for activity_TS in activities]
        return Rows(
            ids=ids,
            units=ids,
            unit=self.SPEC.resample_by,
            references=[self.reference(u) for u in recordings],
            predictions=[encode(to_hundredths(turns) if superb else turns) for turns in made],
        )

    def _settings(self) -> list[Setting]:
        if self.protocol_name == "superb":
            medians = list(MEDIAN_FRAMES)
        else:
            ratios = (round(s / self.grid.shift, 6) for s in MEDIAN_SECONDS)
            medians = sorted({2 * int(ratio // 2) + 1 for ratio in ratios})
        return [Setting(threshold, m) for m in medians for threshold in THRESHOLDS]

    def metrics(self) -> tuple[Metric, ...]:
        """Return DER, missed speech, false alarm and confusion."""
        found = (der(), *der_parts())
        if self.protocol_name == "fixed":
            return found
        return tuple(
            dataclasses.replace(
                m, signature=m.signature.replace("|v1", "|setting:best-of-10-on-test|v1")
            )
            for m in found
        )

    def dev_metric(self) -> Metric:
        """Return DER, or the share of wrong frames."""
        return FRAME_ERROR if self.protocol_name == "superb" else der()


def _classes(speakers: int) -> tuple[str, ...]:
    return tuple(f"speaker{number}" for number in range(1, speakers + 1))


TASK = SpeakerDiarization
