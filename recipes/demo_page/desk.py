"""What the buttons of the demo's page do, without gradio.

Whatever the person at the page can mend is shown as text in the place of the result; everything else
is a defect of ours, which the server logs and the page calls an error.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mynah.recipes import errors
from mynah.recipes.conversion.checks import Recording, RefusedError
from mynah.recipes.demo_page import recordings, render
from mynah.recipes.demo_page.machines import COPY
from mynah.recipes.demo_page.studio import Sitting, Studio, Take, Target, write_wav

if TYPE_CHECKING:
    from mynah.tasks.corpora.utterance import Utterance

MOST_TARGETS = 6
"""Voices that one request of the last tab may ask for."""
PREVIEW = 3.0
"""Seconds."""
GALLERY, OWN = "gallery", "own"
NO_WORDS = "What of the words is left is not measured: start the page with --asr HEAD for that."


def answered(shows: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what a person can mend into a message in the result's place."""

    def said(error: Exception) -> str:
        code = errors.exit_code(error)
        if code is None:
            raise error
        if code == errors.DISK:
            return render.message("the server cannot write: its disk is full", "refused")
        if isinstance(error, OSError) and error.filename is not None:  # no names of the server's
            return render.message(f"the server cannot use its file: {error.strerror}", "refused")
        return render.message(errors.said(error), "refused")

    @functools.wraps(shows)
    def once(*given: Any) -> str:
        try:
            return str(shows(*given))
        except Exception as error:  # noqa: BLE001  said on the page; a page must not die
            return said(error)

    @functools.wraps(shows)
    def one_by_one(*given: Any) -> Iterator[str]:
        try:
            yield from shows(*given)
        except Exception as error:  # noqa: BLE001  said on the page; a page must not die
            yield said(error)

    return one_by_one if inspect.isgeneratorfunction(shows) else once


class Desk:
    """Answers what is asked at the page.

    Args:
        studio: that converts.
    """

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    def seated(self, asked: dict[str, Any]) -> Sitting:
        """Return the chosen source and target.

        Raises:
            RefusedError: one of them is missing or cannot be used.
        """
        return self.studio.sitting(self._source(asked), self._target(asked), said=self._said(asked))

    def convert(self, asked: dict[str, Any]) -> str:
        """Show one conversion."""
        sitting = self.seated(asked)
        return render.pair(sitting, self._take(sitting, asked, asked["method"]))

    def compare(self, asked: dict[str, Any]) -> Iterator[str]:
        """Show the same pair through all methods, and through the vocoder alone, as they come in."""
        sitting = self.seated(asked)
        methods = [*self.studio.machines.methods, COPY]
        takes: list[Take] = []
        refused: list[str] = []
        for number, method in enumerate(methods, 1):
            try:
                takes.append(self._take(sitting, asked, method))
            except Exception as error:  # noqa: BLE001  said on the page; a page must not die
                refused.append(f"{method}: {errors.of_one_cell(error)}")
            if takes:
                waiting = f"{number} of {len(methods)} done" if number < len(methods) else ""
                yield render.comparison(sitting, takes, refused=refused, waiting=waiting)
        if not takes:
            raise RefusedError("; ".join(refused))

    def keep(self, asked: dict[str, Any]) -> Iterator[str]:
        """Show one source in several voices, and through the vocoder alone, as they come in."""
        keys = list(asked["targets"] or ())
        if not 1 <= len(keys) <= MOST_TARGETS:
            raise RefusedError(
                f"choose 1 to {MOST_TARGETS} voices of the gallery, {len(keys)} are chosen"
            )
        source, said = self._source(asked), self._said(asked)
        takes: list[tuple[Sitting, Take]] = []
        note = "" if self.studio.ears.asr else NO_WORDS
        for number, key in enumerate(keys, 1):
            target = self.studio.voice(key, self._text(asked))
            sitting = self.studio.sitting(source, target, said=said)
            takes.append((sitting, self._take(sitting, asked, asked["method"])))
            yield render.kept(takes, note=note, waiting=f"{number} of {len(keys) + 1} done")
        first = takes[0][0]
        takes.append((first, self._take(first, {**asked, "semitones": 0}, COPY)))
        yield render.kept(takes, note=note)

    def example(self, key: str | None) -> tuple[str | None, str]:
        """Return the file and the text of an example."""
        u = self.studio.gallery.examples.get(key or "")
        if u is None:
            return None, ""
        path = self._place(u)
        if not path.is_file():
            write_wav(path, recordings.of_utterance(u))
        return str(path), u.text or ""

    def preview(self, key: str | None) -> str:
        """Show three seconds of a voice."""
        voice = self.studio.gallery.voices.get(key or "")
        if voice is None:
            return ""
        number = list(self.studio.gallery.voices).index(voice.key) + 1
        path = self.studio.lasting / f"voice-{number}.wav"
        sample = recordings.first(recordings.of_utterance(voice.pool[0]), PREVIEW)
        if not path.is_file():
            write_wav(path, sample)
        about = ", ".join(
            word for word in (voice.note, f"{voice.seconds:.0f} s to learn from") if word
        )
        return render.preview(path, title=voice.key, subtitle=about, seconds=sample.seconds)

    def chosen(self, source: str | None) -> Utterance | None:
        """Return the example whose file a source is, None for what somebody made (or cut)."""
        examples = self.studio.gallery.examples.values()
        return next((u for u in examples if source == str(self._place(u))), None)

    def _place(self, u: Utterance) -> Path:
        number = list(self.studio.gallery.examples).index(u.id) + 1
        return self.studio.lasting / f"example-{number}.wav"

    def _source(self, asked: dict[str, Any]) -> Recording:
        example = self.chosen(asked["source"])
        name = example.speaker or example.id if example else "your source"
        return self.studio.source(asked["source"], name=name)

    def _target(self, asked: dict[str, Any]) -> Target:
        if asked["kind"] == OWN:
            return self.studio.uploaded(asked["own"], consent=bool(asked["consent"]))
        return self.studio.voice(asked["voice"], self._text(asked))

    def _text(self, asked: dict[str, Any]) -> str:
        example = self.chosen(asked["source"])
        return (example.text or "") if example else ""

    def _said(self, asked: dict[str, Any]) -> str:
        """Return what is said in the source in the recogniser's units, empty where unknown."""
        if self.studio.ears.unit == "char":
            return str(asked["said"] or "")
        example = self.chosen(asked["source"])
        return (example.label("phones") or "") if example else ""

    def _take(self, sitting: Sitting, asked: dict[str, Any], method: str) -> Take:
        return sitting.take(method, asked["vocoder"], semitones=float(asked["semitones"] or 0))
