"""The methods and vocoders that the page offers, opened when they are first asked for.

Shape suffixes: S samples, T frames, M mel bins.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mynah.recipes.conversion.checks import Recording, RefusedError, resampled
from mynah.recipes.demo_page.recordings import SOURCE_SECONDS

if TYPE_CHECKING:
    from mynah.downstream.core.melspec import LogMelSpectrogram
    from mynah.recipes.conversion.engine import Engine, Result

log = logging.getLogger(__name__)

COPY = "copy"
"""Converts nothing: what the vocoder alone does to the source."""
UNTRAINED = {
    "mkl": "The spectrum's mean and covariance become the target's, in closed form. Nothing is trained.",
    "knn": "Every frame becomes the mean of its nearest in the target's recordings. Nothing is trained.",
    "stats": "Mean and spread of every band become the target's. Nothing is trained.",
}
VOCODERS = ("world", "griffin_lim")
"""Vocoders that need no training."""
KEPT_ENGINES = 16


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to convert.

    Attributes:
        note: for people.
        model: folder of a trained converter, None for methods that need no training.
    """

    note: str
    model: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Voicing:
    """A vocoder.

    Attributes:
        spec: as ``open_vocoder`` takes it: a name, or a folder.
        moves_pitch: whether pitch can be moved with it.
    """

    spec: str
    moves_pitch: bool


class Machines:
    """Engines by method and vocoder.

    Attributes:
        methods: by name, in the order of the page.
        vocoders: likewise.

    Args:
        models: folders of trained converters.
        vocoders: further vocoders, as ``open_vocoder`` takes them.

    Raises:
        FileNotFoundError, ValueError: a folder that holds no trained converter.
        LookupError: no such vocoder.
    """

    def __init__(self, models: Sequence[Path] = (), vocoders: Sequence[str] = ()) -> None:
        from mynah.downstream.core.melspec import LogMelSpectrogram, MelSpec

        self.methods = {name: Method(note=note) for name, note in UNTRAINED.items()}
        for folder in models:
            name, method = trained(folder)
            self.methods[_unique(name, self.methods)] = method
        self.vocoders = offered(vocoders)
        self._engines: dict[tuple[str, str], Engine] = {}
        self._mel: LogMelSpectrogram = LogMelSpectrogram(MelSpec())

    def convert(
        self,
        source: Recording,
        references: Sequence[Recording],
        *,
        method: str,
        vocoder: str,
        semitones: float = 0.0,
    ) -> Result:
        """Convert.

        Raises:
            RefusedError: a recording that cannot be used, or a pitch that this vocoder cannot move.
            LookupError: no such method or vocoder.
        """
        engine = self.engine(method, vocoder)
        if semitones and not self.vocoders[vocoder].moves_pitch:
            able = ", ".join(name for name, one in self.vocoders.items() if one.moves_pitch)
            raise RefusedError(
                f"{vocoder} cannot move the pitch, which is part of its spectrogram: set the pitch "
                f"to 0{f', or take {able}' if able else ''}"
            )
        return engine.convert(source, references, semitones=semitones)

    def engine(self, method: str, vocoder: str) -> Engine:
        """Return the engine of a method and a vocoder.

        Raises:
            LookupError: no such method or vocoder.
            ValueError: the two do not go together.
        """
        from mynah.recipes.conversion.opening import Choice, open_engine

        if method != COPY and method not in self.methods:
            raise LookupError(f"no method {method!r}: choose one of {', '.join(self.methods)}")
        if vocoder not in self.vocoders:
            raise LookupError(f"no vocoder {vocoder!r}: choose one of {', '.join(self.vocoders)}")
        key = (method, vocoder)
        if key not in self._engines:
            model = None if method == COPY else self.methods[method].model
            choice = Choice(
                method=method if model is None else None,
                model=model,
                vocoder=self.vocoders[vocoder].spec,
                longest=SOURCE_SECONDS[1],
            )
            while len(self._engines) >= KEPT_ENGINES:
                del self._engines[next(iter(self._engines))]
            self._engines[key] = open_engine(choice)
        return self._engines[key]

    def mel(self, recording: Recording) -> NDArray[np.float32]:
        """Return the log-mel spectrogram (T, M) that the page draws and measures."""
        import torch

        wav_S = torch.from_numpy(resampled(recording, self._mel.spec.sample_rate))
        found: NDArray[np.float32] = self._mel(wav_S[None])[0].numpy()
        return found

    def f0(self, recording: Recording) -> NDArray[np.float32]:
        """Return F0 (T,) at the frames of :meth:`mel`, in Hz, 0 where nothing is voiced.

        As conversions measure it, and from their memory: what the page draws and what was moved agree,
        in noise too.
        """
        from mynah.recipes.conversion.pitches import f0_of

        spec = self._mel.spec
        found: NDArray[np.float32] = f0_of(resampled(recording, spec.sample_rate), spec).numpy()
        return found


def trained(folder: Path) -> tuple[str, Method]:
    """Return the name and the method of a trained converter's run or model folder.

    Raises:
        FileNotFoundError, ValueError: it holds no trained converter.
    """
    from mynah.recipes.conversion.trainee import only_voice
    from mynah.upstream.core import modelfolder, spec

    head: Mapping[str, Any] = modelfolder.verify(spec.newest(folder))
    if head["upstream"] != "vc":
        raise ValueError(f"{folder} holds a model of {head['upstream']}, not a voice converter")
    config = head["config"]
    reads = f", reads {config['upstream']}" if config.get("upstream") else ""
    name, speakers = folder.resolve().name, config["speakers"]
    if (speaker := only_voice(config["method"], speakers)) is not None:
        note = (
            f"Trained: {config['method']}{reads}; it speaks as {speaker}, whoever is chosen as "
            "target: only the pitch is the target's."
        )
        return f"{name}, speaks as {speaker}", Method(note=note, model=folder)
    note = f"Trained: {config['method']}{reads}, {len(speakers)} speakers."
    return name, Method(note=note, model=folder)


def found_in(folder: Path) -> list[Path]:
    """Return the folders of trained converters in a folder and one level below it.

    What is no converter is passed over in silence, what is a damaged one with a warning.

    Raises:
        FileNotFoundError: no such folder.
    """
    from mynah.upstream.core import spec

    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder of models: {folder}")
    children = sorted(path for path in folder.iterdir() if path.is_dir())
    below = [path for child in children for path in sorted(child.iterdir()) if path.is_dir()]
    out: list[Path] = []
    for path in [folder, *children, *below]:
        if any(other in path.parents for other in out) or not spec.candidates(path):
            continue
        try:
            trained(path)
        except ValueError as error:
            if "not a voice converter" not in str(error):
                log.warning("passed over %s: %s", path, error)
            continue
        out.append(path)
    return out


def offered(more: Sequence[str]) -> dict[str, Voicing]:
    """Return the vocoders that work here by name: those that were asked for, then the default.

    Args:
        more: vocoders that were asked for, as ``open_vocoder`` takes them.

    Raises:
        FileNotFoundError, LookupError, ValueError: one of ``more`` cannot be opened.
    """
    from mynah.recipes.conversion.vocoder import default_vocoder, open_vocoder

    out: dict[str, Voicing] = {}
    for spec in dict.fromkeys([*more, default_vocoder(), *VOCODERS]):
        try:
            moves = open_vocoder(spec).needs_prosody
        except ValueError:
            if spec in more:
                raise
            continue  # pyworld is not installed
        out[_unique(Path(spec).name, out)] = Voicing(spec=spec, moves_pitch=moves)
    return out


def _unique(name: str, taken: Mapping[str, Any]) -> str:
    number, wanted = 1, name
    while wanted in taken or wanted == COPY:
        number += 1
        wanted = f"{name} ({number})"
    return wanted
