"""The page itself: what can be chosen, and what stands where."""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mynah.recipes.demo_page import recordings, render
from mynah.recipes.demo_page.desk import GALLERY, MOST_TARGETS, OWN, Desk, answered
from mynah.recipes.demo_page.gallery import POOL
from mynah.recipes.demo_page.server import KEPT, QUEUE, in_a_loop

if TYPE_CHECKING:
    import gradio

    from mynah.recipes.demo_page.studio import Studio

CHIPS = 36
"""Voices up to which all are shown; more are searched in a list."""
NOTHING_YET = "Nothing converted yet: choose a source and a target, then press the button."
WAYS: list[Any] = ["upload", "microphone"]
PLAIN: dict[str, Any] = {"js_on_load": None, "apply_default_css": False}


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
                words = gradio.HTML(_about(desk.example(opening)[1]), elem_id="words", **PLAIN)
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
        example.input(
            lambda key: (*(found := desk.example(key)), _about(found[1])),
            example,
            [source, said, words],
            **light,
        )
        voice.change(answered(desk.preview), voice, heard, **light)
        method.change(lambda name: _about(machines.methods[name].note), method, about, **light)
        kind.change(
            lambda chosen: [gradio.update(visible=chosen == w) for w in (GALLERY, GALLERY, OWN)],
            kind,
            [from_gallery, heard, from_upload],
            **light,
        )
        for event in (source.upload, source.stop_recording, source.clear):
            event(lambda: (None, "", ""), None, [example, said, words], **light)
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
