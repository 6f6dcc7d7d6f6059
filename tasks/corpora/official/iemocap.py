"""IEMOCAP for ER: five sessions, four emotions, ``exc`` counted as ``hap``.

Busso et al. 2008, doi:10.1007/s10579-008-9076-6; the choice of utterances is SUPERB's. Layout:
``Session1`` to ``Session5``, each with ``dialog/EmoEvaluation/DIALOG.txt``, where the lines
``[START - END] UTTERANCE EMOTION [VALENCE, ...]`` (tabs between) give what the raters agreed on, and
``sentences/wav/DIALOG/UTTERANCE.wav``.

Labels: ``emotion`` (``neu``, ``hap``, ``ang``, ``sad``), ``session``, ``gender``. Utterances of any
other emotion are left out and counted. No ``split``: the task leaves one session out at a time.
``speaker`` is who speaks: ``Ses01M_impro01_F000`` is the woman of session 1, ``Ses01F`` (the first
part of the name says who wore the markers; s3prl takes that for the speaker, and does not use it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mynah.tasks.corpora.official.core.found import Collector, Found
from mynah.tasks.corpora.official.core.layout import audio_files, require
from mynah.tasks.corpora.official.core.published import Size, by_value
from mynah.tasks.corpora.rows import Problems, text_lines

ORIGIN = "sail.usc.edu/iemocap: IEMOCAP_full_release, on request"
VARIANTS: tuple[str, ...] = ()
SESSIONS = tuple(f"Session{number}" for number in range(1, 6))
PUBLISHED: Mapping[str, tuple[Size, ...]] = {
    "": (
        *by_value(
            None, "session", dict(zip(SESSIONS, (1085, 1023, 1151, 1031, 1241), strict=True))
        ),
        *by_value(None, "emotion", {"neu": 1708, "hap": 1636, "ang": 1103, "sad": 1084}),
        Size(count=10, unit="speakers"),
    )
}

EMOTIONS = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}
OTHERS = ("fru", "sur", "fea", "dis", "oth", "xxx")
_NAME = re.compile(r"(Ses0[1-5])[FM]_.*_([FM])\w*\d+")


def read(
    source: str | Path,
    problems: Problems,
    *,
    variant: str = "",
    audio_root: Sequence[str | Path] = (),
    channel: int | None = None,
) -> Found:
    """Read all sessions.

    Args:
        source: the folder ``IEMOCAP_full_release``.
        problems: receives what is wrong: an emotion that IEMOCAP does not have, a rated utterance
            without audio, audio that is not rated (a warning), an utterance rated twice.
        variant: there is one kind only.
        audio_root: folders, besides the source, that audio may lie in.
        channel: of every file.

    Raises:
        FileNotFoundError: a session is missing.
    """
    del variant
    parts = ("dialog/EmoEvaluation", "sentences/wav")
    wanted = [f"{session}/{part}/" for session in SESSIONS for part in parts]
    folder = require(source, "IEMOCAP", ORIGIN, *wanted)
    collector = Collector(folder, problems, audio_root=audio_root, channel=channel)
    for session in SESSIONS:
        base = folder / session / "sentences" / "wav"
        audio = {path.stem: path for path in audio_files(base, (".wav",))}
        rated: dict[str, str] = {}
        for file in sorted((folder / session / "dialog" / "EmoEvaluation").glob("[!.]*.txt")):
            _dialog(collector, file, session, base, audio, rated)
        if silent := sorted(audio.keys() - rated.keys()):
            problems.warn(session, f"{len(silent)} audio files are not rated, first {silent[0]!r}")
    return collector.found()


def _dialog(
    collector: Collector,
    file: Path,
    session: str,
    base: Path,
    audio: Mapping[str, Path],
    rated: dict[str, str],
) -> None:
    """Collect the utterances that one dialog's file rates."""
    for where, line in text_lines(file, collector.problems, blame=False):
        if not line.startswith("["):
            continue
        cells = [cell for cell in line.split("\t") if cell]
        try:
            if len(cells) < 3:
                raise ValueError(f"wanted times, utterance and emotion, got {line!r}")
            name, emotion = cells[1], cells[2]
        except ValueError as error:
            collector.problems.error(where, str(error))
            continue
        try:
            if name in rated:
                raise ValueError(f"{name!r} is rated twice, first at {rated[name]}")
            rated[name] = where
            if emotion not in (*EMOTIONS, *OTHERS):
                raise ValueError(f"{emotion!r} is no emotion of IEMOCAP")
            who = _NAME.fullmatch(name)
            if who is None or f"Session{who[1][-1]}" != session:
                raise ValueError(f"{name!r} is no utterance of {session}")
            if emotion in OTHERS:
                collector.skip(f"emotion {emotion}")
                continue
            if name not in audio:
                raise ValueError(f"no audio {name}.wav for this rating")
        except ValueError as error:
            collector.problems.error(where, str(error), name)
            continue
        collector.add(
            where,
            name,
            audio[name],
            base=base,
            speaker=f"{who[1]}{who[2]}",
            labels={
                "emotion": EMOTIONS[emotion],
                "session": session,
                "gender": who[2].lower(),
            },
        )
