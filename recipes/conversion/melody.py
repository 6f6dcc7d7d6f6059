"""The pitch of conversions beside that of their sources and of what was heard of their targets.

Shape suffixes: T frames.
"""

from __future__ import annotations

from pathlib import Path

from mynah.recipes.conversion.pairs import HEARD, Pair
from mynah.recipes.conversion.systems import Recordings
from mynah.recipes.ears import FALLBACK, Ears
from mynah.tasks.metrics.intonation import log_f0_correlation, median_f0, semitones_apart
from mynah.tasks.metrics.metric import Floats
from mynah.tasks.vc import F0_RANGES


class Melody:
    """F0 of files, as the judge's analysis finds it; that of real recordings is kept.

    Args:
        ears: that analyse.
        real: recordings of a corpus as files.
    """

    def __init__(self, ears: Ears, real: Recordings) -> None:
        self.ears, self.real = ears, real
        self._contours: dict[tuple[Path, tuple[float, float]], Floats] = {}

    def kept(self, pair: Pair, file: Path) -> float | None:
        """Return the correlation of a conversion's log F0 with its source's, None where undefined.

        Args:
            pair: that was converted.
            file: the conversion, which has the source's timing.

        Raises:
            BadAudioError: a file that cannot be read or analysed.
        """
        source_T = self._real(self.real.file(pair.source), FALLBACK)
        return log_f0_correlation(self.ears.voice(file, range_of(pair)).f0_T, source_T)

    def off(self, pair: Pair, file: Path) -> float | None:
        """Return the semitones from a file's median F0 to that of the target's references.

        None where nothing is voiced in one of them.

        Raises:
            BadAudioError: a file that cannot be read or analysed.
        """
        f0_range = range_of(pair)
        heard = [u for u in pair.references if u.duration >= HEARD]  # less cannot be analysed
        target = median_f0([self._real(self.real.file(u), f0_range) for u in heard])
        own = median_f0([self.ears.voice(file, f0_range).f0_T])
        return None if own is None or target is None else semitones_apart(own, target)

    def _real(self, path: Path, f0_range: tuple[float, float]) -> Floats:
        """Return the F0 contour (T,) of a real recording, which costs most of an analysis, once."""
        key = (path, f0_range)
        if key not in self._contours:
            self._contours[key] = self.ears.voice(path, f0_range).f0_T
        return self._contours[key]


def range_of(pair: Pair) -> tuple[float, float]:
    """Return the Hz between which the pitch of a target, and of what should sound so, is looked for."""
    return F0_RANGES.get(str(pair.target.speaker), FALLBACK)
