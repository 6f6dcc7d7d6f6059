"""What the page does with a source and a target: converts, measures, draws, writes the files.

Nothing is kept between conversions but opened models: the same source, target and settings give the
same bytes again.

Shape suffixes: T frames, M mel bins, S samples.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mynah.files import sha256_of
from mynah.recipes.conversion.checks import Recording, RefusedError
from mynah.recipes.demo_page import measures, recordings
from mynah.recipes.demo_page.gallery import Gallery
from mynah.recipes.demo_page.machines import COPY, Machines
from mynah.recipes.demo_page.measures import Ears, Errors, Nearness
from mynah.recipes.demo_page.pictures import Drawn
from mynah.recipes.demo_page.server import KEPT

if TYPE_CHECKING:
    from mynah.tasks.corpora.utterance import Utterance

CONSENT = "say that you may imitate this voice: tick the box below the recording"
LASTING = "lasting"
"""Folder of files that stay until the server stops: previews, the first example."""
SAMPLE = 8.0
"""Seconds of a target's recording that the page plays."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """Whose voice it shall be.

    Attributes:
        name: of the voice, for people.
        references: what a converter hears of it.
        sample: what the page plays of it.
        note: what that is.
        pool: the same recordings as utterances of a corpus, empty for an uploaded one.
    """

    name: str
    references: tuple[Recording, ...]
    sample: Recording
    note: str
    pool: tuple[Utterance, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A recording on the page: its file, its picture.

    Attributes:
        path: WAV file.
        seconds: how long it is.
        drawn: spectrogram and F0.
    """

    path: Path
    seconds: float
    drawn: Drawn


@dataclass(frozen=True, kw_only=True)
class Take:
    """One conversion.

    Attributes:
        method: that converted.
        vocoder: that made the audio.
        made: the conversion.
        record: file that says how it was made.
        warnings: of the engine and of the page.
        nearness: to target and source.
        f0: median in Hz of source, conversion and the target's recording that is played; None where
            nothing is voiced.
        errors: of what is heard, None without a head that writes.
        spent: seconds that the conversion took.
        name: for downloads.
    """

    method: str
    vocoder: str
    made: Shown
    record: Path
    warnings: tuple[str, ...]
    nearness: Nearness
    f0: tuple[float | None, float | None, float | None]
    errors: Errors | None
    spent: float
    name: str

    @property
    def off(self) -> float | None:
        """Semitones from the target's median F0 up to the conversion's."""
        return measures.semitones(self.f0[1], self.f0[2])

    @property
    def real_time(self) -> float:
        """Seconds spent for each second made."""
        return self.spent / self.made.seconds


@dataclass(kw_only=True)
class Studio:
    """The voices, the methods and the judges that the page has.

    Attributes:
        folder: for files that the page shows.
        gallery: voices and examples.
        machines: methods and vocoders.
        ears: trained heads that judge.
    """

    folder: Path
    gallery: Gallery
    machines: Machines
    ears: Ears = field(default_factory=Ears)

    def source(self, path: str | Path | None, *, name: str = "your source") -> Recording:
        """Return the source that was recorded, uploaded or taken from the examples.

        Args:
            path: of its file.
            name: what the page calls it.

        Raises:
            RefusedError: there is none, or it cannot be used.
        """
        if path is None:
            raise RefusedError("no source yet: record one, upload one or take an example")
        return recordings.of_file(path, name=name, limits=recordings.SOURCE_SECONDS)

    def voice(self, key: str | None, said: str = "") -> Target:
        """Return a voice of the gallery as a target.

        Args:
            key: the speaker's id.
            said: what the source says: if the voice has a recording of it, that is the sample.

        Raises:
            RefusedError: no such voice.
        """
        voice = self.gallery.voices.get(key or "")
        if voice is None:
            raise RefusedError("no target yet: choose a voice of the gallery")
        same = voice.same.get(said)
        sample = recordings.of_utterance(same or voice.pool[0], name=voice.key)
        return Target(
            name=voice.key,
            references=tuple(recordings.of_utterance(u) for u in voice.pool),
            sample=recordings.first(sample, SAMPLE),
            note="the target's own recording of these words" if same else "the target speaks",
            pool=voice.pool,
        )

    def uploaded(self, path: str | Path | None, *, consent: bool) -> Target:
        """Return an uploaded or recorded voice as a target.

        Raises:
            RefusedError: there is none, it cannot be used, or nobody said that it may be.
        """
        if path is None:
            raise RefusedError("no target yet: record or upload one, or choose one of the gallery")
        if not consent:
            raise RefusedError(CONSENT)
        heard = recordings.of_file(path, name="your target", limits=recordings.TARGET_SECONDS)
        return Target(
            name="your target",
            references=(heard,),
            sample=recordings.first(heard, SAMPLE),
            note="the target speaks",
        )

    def sitting(self, source: Recording, target: Target, *, said: str = "") -> Sitting:
        """Return a source and a target, ready to be converted by any method."""
        folder = self.fresh_folder()
        return Sitting(studio=self, folder=folder, source=source, target=target, said=said)

    def fresh_folder(self) -> Path:
        """Return a new folder for files of one request; what is older than an hour is removed."""
        self.sweep()
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return folder

    @property
    def lasting(self) -> Path:
        """Folder of files that stay until the server stops."""
        folder = self.folder / LASTING
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def sweep(self) -> None:
        """Remove what is older than an hour."""
        for old in self.folder.glob("*"):
            if old.name != LASTING and time.time() - old.stat().st_mtime > KEPT:
                shutil.rmtree(old, ignore_errors=True)


@dataclass(kw_only=True)
class Sitting:
    """One source and one target, and their files."""

    studio: Studio
    folder: Path
    source: Recording
    target: Target
    said: str

    @cached_property
    def before(self) -> Shown:
        """The source."""
        return self._shown("source.wav", self.source)

    @cached_property
    def sample(self) -> Shown:
        """What is played of the target."""
        return self._shown("target.wav", self.target.sample)

    @cached_property
    def _heard(self) -> Sequence[Utterance]:
        from mynah.recipes.listening import utterance_of

        if self.target.pool:
            return self.target.pool
        path = self.folder / "reference.wav"
        write_wav(path, self.target.references[0])
        return [utterance_of(path, name=measures.OURS)]

    @cached_property
    def _voice_mel(self) -> NDArray[np.float32]:
        machines = self.studio.machines
        return np.concatenate([machines.mel(one) for one in self.target.references])

    def take(self, method: str, vocoder: str, *, semitones: float = 0.0) -> Take:
        """Convert, measure and write.

        Args:
            method: name of a method of the machines.
            vocoder: name of a vocoder of theirs.
            semitones: by which the pitch is moved, on top of what the method does.

        Raises:
            ValueError, LookupError: the engine refuses the source, the target or the settings.
            OSError: the disk is full.
        """
        from mynah import __version__

        studio = self.studio
        made = studio.machines.convert(
            self.source, self.target.references, method=method, vocoder=vocoder, semitones=semitones
        )
        name = f"{_plain(self.source.name)}_to_{_plain(self.target.name)}_{_plain(method)}"
        note = (
            f"synthetic voice: {self.source.name} as {self.target.name}, by {method} and {vocoder}"
            f"{', with a watermark' if made.record['watermark'] else ''}"
        )
        shown = self._shown(
            f"{_plain(method)}_{_plain(vocoder)}_{len(list(self.folder.iterdir()))}.wav",
            Recording(wav_S=made.wav_S, sample_rate=made.sample_rate, name=name),
            note=note,
        )
        nearness = self._nearness(shown)
        errors = studio.ears.errors(shown.path, self.before.path, self.said)
        f0 = [measures.median_f0(one.drawn.f0_T) for one in (self.before, shown, self.sample)]
        warnings = list(made.warnings)
        if nearness.verified and nearness.leaks and method != COPY:
            warnings.append(
                "the speaker verification finds it nearer to the source than to the target"
            )
        facts = {
            "source": self.source.name,
            "target": self.target.name,
            "nearness": asdict(nearness),
            "median_f0_hz": dict(zip(("source", "converted", "target"), f0, strict=True)),
            "errors": None if errors is None else asdict(errors),
            "warnings": warnings,
            "sha256": sha256_of(shown.path),
            "mynah": __version__,
        }
        record = shown.path.with_suffix(".json")
        text = json.dumps({"synthetic": True, **made.record, **facts}, indent=1, ensure_ascii=False)
        record.write_text(text + "\n", encoding="utf-8")
        return Take(
            method=method,
            vocoder=vocoder,
            made=shown,
            record=record,
            warnings=tuple(warnings),
            nearness=nearness,
            f0=(f0[0], f0[1], f0[2]),
            errors=errors,
            spent=made.seconds,
            name=f"{name}_converted",
        )

    def _nearness(self, shown: Shown) -> Nearness:
        found = self.studio.ears.nearness(shown.path, self._heard, self.before.path)
        if found is not None:
            return found
        mel_TM = shown.drawn.mel_TM
        return Nearness(
            target=measures.spectral_distance(mel_TM, self._voice_mel),
            source=measures.spectral_distance(mel_TM, self.before.drawn.mel_TM),
            verified=False,
        )

    def _shown(self, file: str, recording: Recording, *, note: str = "") -> Shown:
        path = self.folder / file
        write_wav(path, recording, note=note)
        machines = self.studio.machines
        drawn = Drawn(
            mel_TM=machines.mel(recording), f0_T=machines.f0(recording), seconds=recording.seconds
        )
        return Shown(path=path, seconds=recording.seconds, drawn=drawn)


def write_wav(path: Path, recording: Recording, *, note: str = "") -> None:
    """Write a 16-bit WAV file; the same audio and note give the same bytes."""
    import soundfile

    with soundfile.SoundFile(
        path, "w", samplerate=recording.sample_rate, channels=1, subtype="PCM_16", format="WAV"
    ) as file:
        if note:
            file.title, file.comment, file.software = "synthetic voice", note, "mynah"
        file.write(np.clip(recording.wav_S, -1, 1))


def _plain(name: str) -> str:
    """Return a name that is safe in file names and links."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40] or "voice"
