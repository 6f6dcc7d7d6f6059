"""What the page shows, as HTML: one conversion, a comparison, what was kept, a message.

Every text goes through jinja2's escaping; only pictures of our own are put in as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from mynah.recipes.demo_page.machines import COPY
from mynah.recipes.demo_page.pictures import picture
from mynah.recipes.demo_page.studio import Shown, Sitting, Take

if TYPE_CHECKING:
    from jinja2 import Template

HERE = Path(__file__).parent
UNCONVERTED = "nothing converted"
SPECTRAL = (
    "distance of log-mel statistics, lower is nearer: of the long-term spectrum, not of how alike two "
    "voices sound (give --asv for that)"
)
VERIFIED = "cosine of the embeddings of the given speaker verification, higher is nearer"


@dataclass(frozen=True, kw_only=True)
class Card:
    """One player.

    Attributes:
        letter: its mark.
        title: what it is.
        subtitle: a little more.
        url: of the audio.
        seconds: how long it is.
        words: players of one value go on where another one was.
        svg: its picture.
        synthetic: whether a machine made it.
        links: (text, URL, file name) to download.
    """

    letter: str
    title: str
    subtitle: str
    url: str
    seconds: float
    words: str
    svg: str = ""
    synthetic: bool = False
    links: Sequence[tuple[str, str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A value, and how long its bar is: a share of the longest."""

    name: str
    share: float
    shown: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something that was measured: its value or bars, and what it means."""

    name: str
    note: str
    shown: str = ""
    bars: Sequence[Bar] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table; an anchor is what others are held against."""

    cells: Sequence[str]
    anchor: bool = False


def signed(value: float) -> str:
    """Return a number with its sign and one decimal; what rounds to zero is plus zero."""
    return f"{round(value, 1) + 0.0:+.1f}"


def head() -> str:
    """Return style and script of the page."""
    return (HERE / "head.html.j2").read_text(encoding="utf-8")


def message(text: str, tone: Literal["refused", "quiet"] = "quiet") -> str:
    """Return a message."""
    return _rendered(kind="message", text=text, tone=tone)


def preview(path: Path, *, title: str, subtitle: str, seconds: float) -> str:
    """Return a small player."""
    card = Card(
        letter="",
        title=title,
        subtitle=subtitle,
        url=url_of(path),
        seconds=seconds,
        words=path.stem,
    )
    return _rendered(kind="preview", card=card)


def pair(sitting: Sitting, take: Take) -> str:
    """Return one conversion: source, conversion and target side by side, and what was measured."""
    axis = max(one.seconds for one in (sitting.before, take.made, sitting.sample))
    cards = [*_given(sitting, axis), _made(sitting, take, axis, letter="B", title="Converted")]
    return _rendered(
        kind="pair",
        cards=[cards[0], cards[2], cards[1]],
        axis=axis,
        warnings=take.warnings,
        facts=facts_of(take),
    )


def comparison(
    sitting: Sitting,
    takes: Sequence[Take],
    *,
    refused: Sequence[str] = (),
    waiting: str = "",
) -> str:
    """Return one source and target through several methods."""
    return _many(
        "method",
        [(take.method, sitting, take) for take in takes],
        given=_given,
        refused=refused,
        waiting=waiting,
    )


def kept(
    takes: Sequence[tuple[Sitting, Take]],
    *,
    refused: Sequence[str] = (),
    note: str = "",
    waiting: str = "",
) -> str:
    """Return one source in several voices; what was not converted is last."""
    return _many(
        "target",
        [(sitting.target.name, sitting, take) for sitting, take in takes],
        given=lambda sitting, axis: _given(sitting, axis)[:1],
        refused=refused,
        note=note,
        waiting=waiting,
    )


def _many(
    what: str,
    takes: Sequence[tuple[str, Sitting, Take]],
    *,
    given: Callable[[Sitting, float], Sequence[Card]],
    refused: Sequence[str],
    note: str = "",
    waiting: str,
) -> str:
    """Return a table of several named takes, and their players."""
    sitting = takes[0][1]
    axis = max(one.seconds for _, s, take in takes for one in (s.before, s.sample, take.made))
    cards = list(given(sitting, axis))
    rows = []
    for number, (name, one, take) in enumerate(takes, 1):
        plain = take.method == COPY
        title = UNCONVERTED if plain else name
        letter = "V" if plain else f"B{number}"
        cards.append(_made(one, take, axis, letter=letter, title=title))
        rows.append(Row(cells=(title, *figures_of(take)), anchor=plain))
    first = takes[0][2]
    said = [*refused, *_gathered([(n, take) for n, _, take in takes if take.method != COPY])]
    return _rendered(
        kind="many",
        caption=f"figures by {what}",
        head=(what, *columns_of(first)),
        rows=rows,
        note=" ".join(text for text in (_note(first), note) if text),
        warnings=said,
        cards=cards,
        axis=axis,
        waiting=waiting,
    )


def columns_of(take: Take) -> tuple[str, ...]:
    """Return the headings of :func:`figures_of`."""
    near = "similarity" if take.nearness.verified else "distance (dB)"
    wrong = (f"{take.errors.unit} errors",) if take.errors else ()
    return (f"{near} to target", f"{near} to source", *wrong, "F0 off (st)", "× real time")


def figures_of(take: Take) -> tuple[str, ...]:
    """Return what was measured of a conversion, as cells."""
    digits = 2 if take.nearness.verified else 1
    wrong = (f"{100 * take.errors.rate:.0f} %",) if take.errors else ()
    return (
        f"{take.nearness.target:.{digits}f}",
        f"{take.nearness.source:.{digits}f}",
        *wrong,
        "–" if take.off is None else signed(take.off),
        f"{take.real_time:.2f}",
    )


def facts_of(take: Take) -> list[Fact]:
    """Return what was measured of a conversion."""
    near = take.nearness
    shown = "{:.2f}" if near.verified else "{:.1f} dB"
    top = 1.0 if near.verified else max(near.target, near.source, 1e-9)
    medians = ", ".join(
        f"{name} {'–' if hertz is None else f'{hertz:.0f} Hz'}"
        for name, hertz in zip(("source", "converted", "target"), take.f0, strict=True)
    )
    out = [
        Fact(
            name="Whose voice is it near?",
            bars=[
                Bar(name=name, share=min(1.0, max(0.0, value / top)), shown=shown.format(value))
                for name, value in (("target", near.target), ("source", near.source))
            ],
            note=VERIFIED if near.verified else SPECTRAL,
        ),
        Fact(
            name="Pitch against the target",
            shown="not known" if take.off is None else f"{signed(take.off)} semitones",
            note=f"median F0: {medians}",
        ),
        Fact(
            name="Time",
            shown=f"{take.spent:.2f} s",
            note=f"for {take.made.seconds:.1f} s of speech: {take.real_time:.2f} × real time",
        ),
    ]
    if take.errors is not None:
        against = "what is said" if take.errors.given else "what is heard of the source"
        out.append(
            Fact(
                name=f"{take.errors.unit.capitalize()} errors",
                shown=f"{100 * take.errors.rate:.0f} %",
                note=f"against {against}; heard: {take.errors.heard or 'nothing'}",
            )
        )
    return out


def url_of(path: Path) -> str:
    """Return the address under which the server gives a file of the page's folder."""
    return f"gradio_api/file={quote(str(path))}"


def _given(sitting: Sitting, axis: float) -> tuple[Card, Card]:
    """Return the players of the source and of the target."""
    before, sample = sitting.before, sitting.sample
    return (
        Card(
            letter="A",
            title="Source",
            subtitle=sitting.source.name,
            url=url_of(before.path),
            seconds=before.seconds,
            words="source",
            svg=_drawn(before, axis, "source"),
        ),
        Card(
            letter="T",
            title=f"Target: {sitting.target.name}",
            subtitle=sitting.target.note,
            url=url_of(sample.path),
            seconds=sample.seconds,
            words="target",
            svg=_drawn(sample, axis, "target"),
        ),
    )


def _made(sitting: Sitting, take: Take, axis: float, *, letter: str, title: str) -> Card:
    return Card(
        letter=letter,
        title=title,
        subtitle=(
            f"the source through {take.vocoder} alone"
            if take.method == COPY
            else f"{sitting.source.name} as {sitting.target.name}, {take.method}, {take.vocoder}"
        ),
        url=url_of(take.made.path),
        seconds=take.made.seconds,
        words="source",
        svg=_drawn(take.made, axis, "conversion"),
        synthetic=True,
        links=(
            ("WAV", url_of(take.made.path), f"{take.name}.wav"),
            ("record", url_of(take.record), f"{take.name}.json"),
        ),
    )


def _drawn(shown: Shown, axis: float, what: str) -> str:
    return picture(
        shown.drawn,
        axis=axis,
        alt=f"spectrogram and F0 curve of the {what}, {shown.seconds:.1f} s",
    )


def _note(take: Take) -> str:
    text = VERIFIED if take.nearness.verified else SPECTRAL
    return f"{text[0].upper()}{text[1:]}."


def _gathered(takes: Sequence[tuple[str, Take]]) -> list[str]:
    """Return the warnings of several named takes, each once, with those whom it concerns."""
    said: dict[str, list[str]] = {}
    for name, take in takes:
        for text in take.warnings:
            said.setdefault(text, []).append(name)
    return [
        text if len(who) == len(takes) else f"{', '.join(dict.fromkeys(who))}: {text}"
        for text, who in said.items()
    ]


def _rendered(**values: object) -> str:
    return "".join(line.strip() for line in _template().render(**values).splitlines())


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("results.html.j2")
