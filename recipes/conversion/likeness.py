"""Whom a conversion sounds like: the target, or still the source.

- ``margin``: cosine to the target's recordings minus cosine to the source's. Of the verification's
  embeddings; without one, of the mean and deviation over loud frames of mel-cepstra c(1) to c(24),
  in deviations of the real recordings. That is no model of a speaker, but none that converters
  learnt from either. Recordings that a conversion was made of do not take part;
- acceptance: the share of the target's recordings with which a verification takes a file for one
  voice, where there is no recording of the sentence to compare with; likewise without recordings that
  the file was made of;
- ``eer``: of a verification that is to tell the target's recordings from conversions: trials of one
  speaker are pairs of real recordings of the target, trials of two are a conversion and a real
  recording that it was not made of. 50 % cannot be told apart (Baas et al. 2023, arXiv:2305.18975).

Shape suffixes: n recordings, D width of a voice's vector, T frames, M coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mynah.recipes.conversion.pair_intervals import Speakers, interval
from mynah.recipes.conversion.pairs import Pair
from mynah.recipes.conversion.systems import Recordings
from mynah.recipes.ears import FALLBACK, Ears
from mynah.recipes.listening import Listener
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics import detection
from mynah.tasks.metrics.bootstrap import Interval
from mynah.tasks.metrics.conversion import GATE
from mynah.tasks.metrics.metric import Floats
from mynah.tasks.vc import acceptance, cosines, real_trials

COEFFICIENTS = 24


class Likeness:
    """Voices of files, and how near they are.

    Args:
        ears: that analyse, and hear for the verification.
        real: recordings of a corpus as files.
        known: those files, and whose they are.
        verifier: trained head of speaker verification, or None for mel-cepstra.
    """

    def __init__(
        self,
        ears: Ears,
        real: Recordings,
        known: Mapping[Path, Utterance],
        verifier: Listener | None,
    ) -> None:
        self.ears, self.real, self.known, self.verifier = ears, real, known, verifier
        self._scale: tuple[Floats, Floats] | None = None

    def vector(self, path: Path) -> Floats:
        """Return the voice (D,) of a file, as the verification or mel-cepstra know it.

        Raises:
            BadAudioError, ValueError: audio that cannot be used.
        """
        if self.verifier is not None:
            return np.asarray(self.ears.said(self.verifier, path), dtype=np.float64)
        if self._scale is None:
            all_nD = np.stack([self._plain(one) for one in self.known])
            self._scale = all_nD.mean(0), np.maximum(all_nD.std(0), 1e-6)
        centre_D, spread_D = self._scale
        scaled: Floats = (self._plain(path) - centre_D) / spread_D
        return scaled

    def margin(self, pair: Pair, file: Path) -> float | None:
        """Return how much nearer a conversion is to its target than to its source.

        None where no recording of one of them is left that was not heard.
        """
        but = self._made_of(pair, file)
        target, source = (self._of(u.speaker, but) for u in (pair.target, pair.source))
        if not target or not source:
            return None
        vector = self.vector(file)
        return float(cosines(vector, target).mean() - cosines(vector, source).mean())

    def accepted(self, pair: Pair, file: Path, threshold: float) -> float | None:
        """Return the share of the target's recordings that the verification takes for a file's voice.

        None where none is left that was not heard.
        """
        target = self._of(pair.target.speaker, self._made_of(pair, file))
        return acceptance(self.vector(file), target, threshold) if target else None

    def eer(self, there: Sequence[tuple[Pair, Path]]) -> Interval | None:
        """Return how badly conversions are told from the target's recordings that they were not made of.

        None without trials of both kinds.
        """
        labels: list[str] = []
        scores: list[float] = []
        speakers: list[Speakers] = []
        for name in sorted({str(pair.target.speaker) for pair, _ in there}):
            own = self._of(name, ())
            for place, vector in enumerate(own[:-1]):
                found = cosines(vector, own[place + 1 :])
                labels += [detection.TARGET] * len(found)
                scores += found.tolist()
                speakers += [(name, name)] * len(found)
        if not labels:
            return None
        for pair, file in there:
            real = self._of(pair.target.speaker, self._made_of(pair, file))
            if not real:
                continue
            found = cosines(self.vector(file), real)
            labels += [detection.NONTARGET] * len(found)
            scores += found.tolist()
            speakers += [(str(pair.source.speaker), str(pair.target.speaker))] * len(found)
        if detection.NONTARGET not in labels:
            return None
        return interval(detection.eer(), labels, [repr(s) for s in scores], speakers)

    def own_eer(self, paths: Sequence[Path], names: Sequence[str]) -> Interval | None:
        """Return the EER of all pairs of some speakers' files, None without trials of both kinds."""
        vectors = [self.vector(path) for path in paths]
        if not 1 < len(set(names)) < len(names):
            return None
        scores, targets = real_trials(vectors, names)
        first, second = np.triu_indices(len(paths), k=1)
        return interval(
            detection.eer(),
            [detection.TARGET if t else detection.NONTARGET for t in targets],
            [repr(float(s)) for s in scores],
            [(names[i], names[j]) for i, j in zip(first.tolist(), second.tolist(), strict=True)],
        )

    def _plain(self, path: Path) -> Floats:
        voice = self.ears.voice(path, FALLBACK)
        loud_TM = voice.cepstra_TM[voice.power_T > GATE, 1 : COEFFICIENTS + 1]
        return np.concatenate([loud_TM.mean(0), loud_TM.std(0)])

    def _made_of(self, pair: Pair, file: Path) -> list[Path]:
        """Return recordings that say nothing of how a file sounds: what made it, and itself.

        The pair's recording of the target is among them: a copy of it stands in the same table.
        """
        heard = (pair.source, pair.target, *pair.references, *pair.own)
        return [*(self.real.file(u) for u in heard), file]

    def _of(self, speaker: str | None, but: Sequence[Path]) -> list[Floats]:
        """Return the voices of a speaker's real recordings, without some."""
        return [
            self.vector(path)
            for path, u in self.known.items()
            if u.speaker == speaker and path not in but
        ]
