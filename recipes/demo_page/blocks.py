"""The page itself: what can be chosen, what the buttons do.

Whatever the person at the page can mend is shown as text in the place of the result; everything else
is a defect of ours, which the server logs and the page calls an error.
"""

from __future__ import annotations

import functools
import html
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mynah.recipes import errors
from mynah.recipes.conversion.checks import Recording, RefusedError
from mynah.recipes.demo_page import recordings, render
from mynah.recipes.demo_page.gallery import POOL
from mynah.recipes.demo_page.machines import COPY
from mynah.recipes.demo_page.server import KEPT, QUEUE, in_a_loop
from mynah.recipes.demo_page.studio import Sitting, Studio, Take, Target, write_wav

if TYPE_CHECKING:
    import gradio

    from mynah.tasks.corpora.utterance import Utterance

MOST_TARGETS = 6
"""Voices that one request of the last tab may ask for."""
CHIPS = 36
"""Voices up to which all are shown; more are searched in a list."""
PREVIEW = 3.0
"""Seconds."""
GALLERY, OWN = "gallery", "own"
NOTHING_YET = "Nothing converted yet: choose a source and a target, then press the button."
WAYS: list[Any] = ["upload", "microphone"]
PLAIN: dict[str, Any] = {"js_on_load": None, "apply_default_css": False}


def answered(shows: Callable[..., Any]) -> Callable[..., Any]:
    """Turn what a person can mend into a message in the result's place."""

    def said(error: Exception) -> str:
        code = errors.exit_code(error)
        if code is None:
            raise error
        if code == errors.DISK:
            return render.message("the server cannot write: its disk is full", "refused")
        text = error.args[0] if isinstance(error, LookupError) and error.args else error
        return render.message(str(text), "refused")

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
    """What the buttons of the page do, without gradio.

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


NO_WORDS = "What of the words is left is not measured: start the page with --asr HEAD for that."


def build(studio: Studio) -> gradio.Blocks:
    """Return the page, not yet served.

    Args:
        studio: that converts.
    """
    return in_a_loop(lambda: _build(studio))


def _build(studio: Studio) -> gradio.Blocks:
    import gradio

    desk = Desk(studio)
    gallery, machines = studio.gallery, studio.machines
    voices = [(_voice_name(v.key, v.note), v.key) for v in gallery.voices.values()]
    first = max(gallery.voices.values(), key=lambda v: v.seconds >= POOL / 2).key
    opening = next(iter(gallery.examples))
    quiet: dict[str, Any] = {
        "api_visibility": "private",
        "concurrency_id": "work",
        "concurrency_limit": 1,
        "show_progress": "minimal",
    }
    with gradio.Blocks(
        analytics_enabled=False, title="mynah: voice conversion", delete_cache=(KEPT // 6, KEPT)
    ) as page:
        gradio.HTML(_masthead(studio), elem_id="masthead", **PLAIN)
        with gradio.Row(equal_height=False):
            with gradio.Column(min_width=300, elem_classes="step"):
                gradio.HTML(_step(1, "Source: what is said"), **PLAIN)
                source = gradio.Audio(
                    desk.example(opening)[0],
                    sources=WAYS,
                    type="filepath",
                    label="your source",
                    show_label=False,
                    buttons=[],
                    elem_id="source",
                )
                example = gradio.Dropdown(
                    [
                        (_example_name(u.speaker, u.text or u.id), u.id)
                        for u in gallery.examples.values()
                    ],
                    value=opening,
                    label="or an example",
                    elem_id="example",
                )
                said = gradio.Textbox(
                    gallery.examples[opening].text,
                    label="what is said",
                    info="for the character errors; empty: what is heard of the source",
                    visible=studio.ears.unit == "char",
                    max_length=400,
                )
            with gradio.Column(min_width=300, elem_classes="step"):
                gradio.HTML(_step(2, "Target: in whose voice"), **PLAIN)
                kind = gradio.Radio(
                    [("a voice of the gallery", GALLERY), ("my own recording", OWN)],
                    value=GALLERY,
                    show_label=False,
                    container=False,
                    elem_id="kind",
                )
                with gradio.Group(visible=True) as from_gallery:
                    voice = _chooser(gradio, voices, first)
                heard = gradio.HTML(desk.preview(first), elem_id="preview", **PLAIN)
                with gradio.Group(visible=False) as from_upload:
                    own = gradio.Audio(
                        sources=WAYS,
                        type="filepath",
                        label="your target",
                        show_label=False,
                        buttons=[],
                        elem_id="own",
                    )
                    consent = gradio.Checkbox(
                        label="This is my voice, or its owner allowed me to imitate it.",
                        elem_id="consent",
                    )
            with gradio.Column(min_width=300, elem_classes="step"):
                gradio.HTML(_step(3, "How"), **PLAIN)
                method = gradio.Radio(
                    list(machines.methods),
                    value=next(iter(machines.methods)),
                    label="method",
                    elem_id="method",
                )
                about = gradio.HTML(_about(next(iter(machines.methods.values())).note), **PLAIN)
                vocoder = gradio.Radio(
                    list(machines.vocoders),
                    value=next(iter(machines.vocoders)),
                    label="vocoder",
                    elem_id="vocoder",
                )
                semitones = gradio.Slider(
                    -12, 12, value=0, step=0.5, label="pitch, semitones up or down", elem_id="pitch"
                )
        asked = {
            "source": source,
            "said": said,
            "kind": kind,
            "voice": voice,
            "own": own,
            "consent": consent,
            "method": method,
            "vocoder": vocoder,
            "semitones": semitones,
        }

        def ask(names: list[str], shows: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
            named = answered(shows)
            if inspect.isgeneratorfunction(shows):

                def many(*values: Any) -> Iterator[str]:
                    yield from named(dict(zip(names, values, strict=True)))

                return many
            return lambda *values: named(dict(zip(names, values, strict=True)))

        def tab(title: str, press: str, name: str, shows: Any, more: dict[str, Any]) -> None:
            parts = {**asked, **more}
            button = gradio.Button(press, variant="primary", elem_id=f"{name}-go")
            result = gradio.HTML(render.message(NOTHING_YET), elem_id=f"{name}-result", **PLAIN)
            button.click(ask(list(parts), shows), list(parts.values()), result, **quiet)

        with gradio.Tabs():
            with gradio.Tab("Convert"):
                tab("Convert", "Convert", "convert", desk.convert, {})
            with gradio.Tab("Compare"):
                gradio.HTML(_line(COMPARE), **PLAIN)
                tab("Compare", "Compare all methods", "compare", desk.compare, {})
            with gradio.Tab("What it keeps"):
                gradio.HTML(_line(KEEP), **PLAIN)
                targets = _many(gradio, voices)
                tab("Keep", "Convert to all of these", "keep", desk.keep, {"targets": targets})
        gradio.HTML(_small_print(), elem_id="small-print", **PLAIN)

        light: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        example.input(desk.example, example, [source, said], **light)
        voice.change(answered(desk.preview), voice, heard, **light)
        method.change(lambda name: _about(machines.methods[name].note), method, about, **light)
        kind.change(
            lambda chosen: [gradio.update(visible=chosen == w) for w in (GALLERY, GALLERY, OWN)],
            kind,
            [from_gallery, heard, from_upload],
            **light,
        )
        for event in (source.upload, source.stop_recording, source.clear):
            event(lambda: (None, ""), None, [example, said], **light)
        for event in (own.upload, own.stop_recording, own.clear):
            event(lambda: False, None, consent, **light)
    made: gradio.Blocks = page
    return made


COMPARE = "The source and target above through every method, with the vocoder and pitch above."
KEEP = (
    "The source above to several voices of the gallery by the method above: how much of each voice it "
    "takes on, and how much of the words it keeps."
)


def _chooser(gradio: Any, voices: list[tuple[str, str]], first: str) -> Any:
    kind = gradio.Radio if len(voices) <= CHIPS else gradio.Dropdown
    return kind(voices, value=first, label=f"{len(voices)} voices", elem_id="voices")


def _many(gradio: Any, voices: list[tuple[str, str]]) -> Any:
    label = f"voices, at most {MOST_TARGETS}"
    some = [key for _, key in voices[1 : 1 + 3]]
    return gradio.Dropdown(voices, value=some, multiselect=True, label=label, max_choices=MOST_TARGETS, elem_id="targets")  # fmt: skip


def look() -> dict[str, Any]:
    """Return theme and head of the page; fonts are the system's own."""
    import gradio

    theme = gradio.themes.Base(
        primary_hue=gradio.themes.colors.blue,
        neutral_hue=gradio.themes.colors.slate,
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )
    return {"theme": theme, "head": render.head()}


def _voice_name(key: str, note: str) -> str:
    return f"{key} · {note}" if note else key


def _example_name(speaker: str | None, text: str) -> str:
    short = text if len(text) <= 60 else f"{text[:59]}…"
    return f"{speaker}: {short}" if speaker else short


def _step(number: int, title: str) -> str:
    return f"<h3><i>{number}</i>{html.escape(title)}</h3>"


def _about(text: str) -> str:
    return f'<p class="about">{html.escape(text)}</p>'


def _line(text: str) -> str:
    return f'<p class="line">{html.escape(text)}</p>'


def _masthead(studio: Studio) -> str:
    return (
        "<h1>Voice conversion</h1><p>The same words in another voice. Everything is computed on the "
        f"machine that serves this page; voices come from <b>{html.escape(studio.gallery.name)}</b>. "
        "Every result is a synthetic voice and is marked as such.</p>"
    )


def _small_print() -> str:
    low, high = recordings.SOURCE_SECONDS
    least, most = recordings.TARGET_SECONDS
    return _line(
        f"A source may last {low:g} to {high:g} s, a target's recording {least:g} to {most:g} s, a file "
        f"{recordings.MAX_BYTES // 2**20} MB. Uploads and results are deleted after {KEPT // 60} minutes "
        f"and when the server stops. One conversion runs at a time, {QUEUE} may wait."
    )
