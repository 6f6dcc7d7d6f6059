"""Audio files as judges of conversions hear them, each analysed once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mynah.recipes.listening import Listener
    from mynah.tasks.core.contract import Decoded
    from mynah.tasks.corpora.utterance import Utterance
    from mynah.tasks.metrics.conversion import Voice

FALLBACK = (71.0, 800.0)  # WORLD's range of F0


class Ears:
    """Audio files, analysed or heard by heads; what was found of a file is kept until forgotten.

    Args:
        rate: Hz of analyses, None for each file's own.
    """

    def __init__(self, rate: int | None) -> None:
        self.rate = rate
        self._voices: dict[tuple[Path, tuple[float, float]], Voice] = {}
        self._said: dict[tuple[int, str, float], Decoded] = {}

    def voice(self, path: Path, f0_range: tuple[float, float]) -> Voice:
        """Return the analysis of a file in a range of F0.

        Raises:
            BadAudioError: it cannot be read or analysed.
        """
        from mynah.recipes.listening import utterance_of
        from mynah.tasks.corpora.audio import BadAudioError, read
        from mynah.tasks.metrics.conversion import analyse

        key = (path, f0_range)
        if key not in self._voices:
            utterance = utterance_of(path, name=str(path))
            rate = self.rate or utterance.sample_rate
            wav_S = read(utterance, rate)
            try:
                self._voices[key] = analyse(wav_S, sample_rate=rate, f0_range=f0_range)
            except ValueError as error:
                raise BadAudioError(f"{path}: {error}") from error
        return self._voices[key]

    def forget(self, files: Sequence[Path]) -> None:
        """Drop the analyses, which are large, of files that nobody asks of again."""
        gone = set(files)
        self._voices = {key: v for key, v in self._voices.items() if key[0] not in gone}

    def said(self, listener: Listener, heard: Path | Utterance) -> Decoded:
        """Return what a head says of a file or an utterance.

        Raises:
            BadAudioError, ValueError, DataError: as the listener.
        """
        from mynah.recipes.listening import utterance_of

        u = utterance_of(heard, name=str(heard)) if isinstance(heard, Path) else heard
        key = (id(listener), u.path, u.start)
        if key not in self._said:
            self._said[key] = listener.decoded(u)
        return self._said[key]
