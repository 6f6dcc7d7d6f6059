"""The demo's page in a real browser: an upload is converted and played, and nothing else is asked for.

``MYNAH_PICTURES=FOLDER python -m pytest -m slow tests/test_demo_browser.py -k looks`` keeps
pictures of the page, wide and narrow, light and dark.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'mynah[demo]'")
sys.path.insert(0, str(Path(__file__).parent / "doubles"))
import chromium
from chromium import Chromium
from demo_server import Served, serving
from gallery_corpus import write_gallery
from voices import RATE, voice

pytestmark = pytest.mark.skipif(
    chromium.found() is None, reason=f"no browser here: install one of {', '.join(chromium.NAMES)}"
)

SOURCE = "document.querySelector('#convert-result audio')"
RESULT = "#convert-result .take"
MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    corpus = write_gallery(tmp_path_factory.mktemp("data") / "three")
    with serving(corpus.folder) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium(*MICROPHONE) as one:
        yield one


def opened(browser: Chromium, served: Served, **size: object) -> None:
    browser.open(served.url, **size)
    browser.until("!!document.querySelector('#convert-go')")
    browser.until(
        "!!document.querySelector('#source audio, #source .waveform-container, #source canvas')"
    )


def choose(browser: Chromium, radio: str, value: str) -> None:
    browser.click(
        f"[...document.querySelectorAll('#{radio} input')].find((i) => i.value === '{value}')"
    )


def durations(browser: Chromium, result: str = "convert-result") -> list[float]:
    """Return how long each player of a result says that its audio is."""
    players = f"[...document.querySelectorAll('#{result} .take audio')]"
    browser.until(f"{players}.length && {players}.every((a) => a.duration > 0)")
    return [float(one) for one in browser.js(f"{players}.map((a) => a.duration)")]


def test_an_upload_is_converted_and_played(
    browser: Chromium, served: Served, tmp_path: Path
) -> None:
    path = tmp_path / "<b>mine.wav"
    soundfile.write(path, voice(130.0, 1.75, 5), RATE)
    opened(browser, served)
    browser.click("document.querySelector('#source button[aria-label=\"Clear\"]')")
    browser.until("!!document.querySelector('#source input[type=file]')")
    browser.give("#source input[type=file]", path)
    browser.until("!document.querySelector('#source input[type=file]')")
    choose(browser, "vocoder", "griffin_lim")
    browser.click("document.querySelector('#convert-go')")
    assert durations(browser) == pytest.approx([1.75, 1.75, 2.3], abs=1e-3)
    made = browser.js("document.querySelector('#convert-result .made').innerText")
    assert "synthetic voice" in made
    assert "your source as ann" in made
    assert browser.js("document.querySelectorAll('#convert-result .plot svg path.f0').length") == 3

    browser.click("document.querySelectorAll('#convert-result .play')[0]")
    browser.until(f"{SOURCE}.currentTime > 0.1 && !{SOURCE}.paused")
    browser.click("document.querySelectorAll('#convert-result .play')[1]")
    at = browser.until(
        f"{SOURCE}.paused && document.querySelectorAll('#convert-result audio')[1].currentTime"
    )
    assert at > 0.1, "the conversion goes on where the source was"
    assert browser.js("document.querySelectorAll('.take.playing').length") == 1
    browser.js(
        "(() => { const s = document.querySelectorAll('#convert-result .seek')[2]; s.value = 1.5;"
        "s.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    assert browser.js("document.querySelectorAll('#convert-result audio')[2].currentTime") == 1.5


@pytest.mark.slow
def test_a_recording_is_converted(browser: Chromium, served: Served) -> None:
    opened(browser, served)
    browser.click("document.querySelector('#source button[aria-label=\"Clear\"]')")
    browser.click("document.querySelector('#source button[aria-label=\"Record audio\"]')")
    browser.click("document.querySelector('#source button.record-button')")
    browser.js("new Promise((done) => setTimeout(done, 1500))")
    browser.click("document.querySelector('#source button.stop-button')")
    browser.until("!document.querySelector('#source button.stop-button')?.offsetParent")
    browser.js("new Promise((done) => setTimeout(done, 500))")
    choose(browser, "vocoder", "griffin_lim")
    browser.click("document.querySelector('#convert-go')")
    source, made, _ = durations(browser)
    assert 0.9 < source < 5
    assert made == pytest.approx(source, abs=1e-3)


def test_a_refusal_is_shown_as_text(browser: Chromium, served: Served) -> None:
    opened(browser, served)
    choose(browser, "kind", "own")
    browser.click("document.querySelector('#convert-go')")
    said = browser.until("document.querySelector('#convert-result .refused')?.innerText")
    assert said.startswith("no target yet: record or upload one")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(w, d) for w in (1280, 390) for d in (False, True)])
def test_looks(browser: Chromium, served: Served, width: int, dark: bool, tmp_path: Path) -> None:
    folder = Path(os.environ.get("MYNAH_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    opened(browser, served, width=width, dark=dark)
    choose(browser, "vocoder", "griffin_lim")
    browser.click("document.querySelector('#convert-go')")
    durations(browser)
    assert browser.js("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    assert browser.js("document.body.classList.contains('dark')") is dark
    tops = browser.js(
        f"[...document.querySelectorAll('{RESULT} .plot')].map((e) => e.getBoundingClientRect().top)"
    )
    assert len(set(tops)) == (1 if width > 900 else 3), "players are aligned"
    browser.picture(folder / f"demo-{width}-{'dark' if dark else 'light'}.png")


def test_the_page_asks_nobody_else_and_complains_of_nothing(
    browser: Chromium, served: Served
) -> None:
    browser.open("about:blank")  # a page that is left in the middle of a stream complains of that
    browser.until("location.href === 'about:blank'")
    browser.said.clear()
    browser.asked.clear()
    opened(browser, served)
    asked = {url.split("/")[2] for url in browser.asked if url.startswith("http")}
    assert asked == {served.url.split("/")[2]}
    assert browser.said == []
