"""The report in a real browser, from the disk: sorting, filtering, audio, phones, paper."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "doubles"))
import chromium
from chromium import Chromium
from resulting import ACCURACY, PER, PHONES, perfect, words, write

from mynah.recipes import cli
from mynah.tasks.corpora.corpus import Corpus, write_corpus
from mynah.tasks.corpora.utterance import Utterance

pytestmark = pytest.mark.skipif(
    chromium.found() is None, reason=f"no browser here: install one of {', '.join(chromium.NAMES)}"
)
NAMES = "[...document.querySelectorAll('#scores tbody tr')].filter((r) => !r.hidden).map((r) => r.cells[0].textContent)"
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
LONG = "hubert-base@a-run-with-a-long-name-step-00100000-0123ab"


def spoken(folder: Path) -> Corpus:
    """Write a corpus of noises whose ids are those of results."""
    import soundfile

    rng = np.random.default_rng(0)
    made = []
    for i in range(3):
        path = folder / "audio" / f"u{5 * i}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(8000), 16000)
        made.append(
            Utterance(id=f"u{5 * i}", path=str(path), start=0.0, duration=0.5, sample_rate=16000,
                      channel=0, speaker=f"s{i}")
        )  # fmt: skip
    return write_corpus(folder, made, name="mini")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    corpus = spoken(folder / "corpus")
    found = folder / "results"
    sweep = [
        {"learning_rate": lr, "step": s, "train_loss": 9 / s, "dev": 1 - 1 / s}
        for lr in (1e-2, 1e-3) for s in range(10, 200, 10)
    ]  # fmt: skip
    more: dict[str, Any] = {
        "sweep": sweep, "choices": [{"learning_rate": 1e-2, "step": 50, "dev": 0.9}],
        "corpus_version": corpus.version, "layer_weights": [0.2] * 5,
        "classes": ["no", "yes"], "confusion": [[5, 3], [1, 9]],
    }  # fmt: skip
    for size, (name, errors) in enumerate((("middle", 2), ("good", 1), (LONG, 3))):
        write(found, "ks", words(errors), ["accuracy"], ACCURACY, upstream=name,
              upstream_macs=10 ** (7 + size), **more)  # fmt: skip
    write(found, "pr", PHONES, ["per"], PER, upstream=LONG)
    perfect(found, protocol="fixed")
    for step in (0, 100):
        write(found, "er", words(2), ["accuracy"], ACCURACY, upstream=f"apc-{step}",
              upstream_run="apc", upstream_step=step)  # fmt: skip
    out = folder / "report.html"
    command = ["report", str(found), "--out", str(out), "--audio", "2"]
    assert cli.main([*command, "--corpus", str(folder / "corpus")]) == 0
    again = folder / "again.html"
    command[3] = str(again)
    assert cli.main([*command, "--corpus", str(folder / "corpus")]) == 0
    assert again.read_bytes() == out.read_bytes()  # audio and all
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as one:
        yield one


def opened(browser: Chromium, page: Path, **size: Any) -> None:
    browser.open("about:blank")
    browser.open(page.as_uri(), **size)
    browser.until(f"location.href === '{page.as_uri()}' && document.readyState === 'complete'")


def head(title: str) -> str:
    return f"[...document.querySelectorAll('#scores thead button')].find((b) => b.textContent.startsWith('{title}'))"


def test_sorting(browser: Chromium, page: Path) -> None:
    opened(browser, page)
    browser.click(head("ks mini"))
    assert browser.js(NAMES)[:4] == ["perfect", "good", "middle", LONG]  # the best first
    assert browser.js(f"{head('ks mini')}.parentElement.ariaSort") == "descending"
    browser.click(head("ks mini"))
    assert browser.js(NAMES)[:4] == [LONG, "middle", "good", "perfect"]
    browser.click(head("pr mini"))
    assert browser.js(NAMES)[:2] == ["perfect", LONG]  # less is better; those without come last
    browser.click(head("MAC/s"))
    assert browser.js(NAMES)[:3] == ["middle", "good", LONG]
    browser.click(head("upstream"))
    assert browser.js(NAMES) == sorted(browser.js(NAMES))


def test_filtering(browser: Chromium, page: Path) -> None:
    opened(browser, page)
    browser.js(
        "document.querySelector('#filter').value = 'HUBERT base';"
        "document.querySelector('#filter').dispatchEvent(new Event('input'))"
    )
    assert browser.js(NAMES) == [LONG]
    assert browser.js("document.querySelector('#shown').textContent") == "1 shown"
    open_runs = "[...document.querySelectorAll('details')].filter((d) => !d.hidden).map((d) => d.dataset.upstream)"
    assert set(browser.js(open_runs)) == {LONG}
    browser.js(
        "document.querySelector('#filter').value = '';"
        "document.querySelector('#task').value = 'ks on mini (fixed)';"
        "document.querySelector('#task').dispatchEvent(new Event('change'))"
    )
    shown = "[...document.querySelectorAll('main > section')].filter((s) => !s.hidden && s.dataset.task).map((s) => s.dataset.task)"
    assert browser.js(shown) == ["ks on mini (fixed)"]
    seen = "[...document.querySelectorAll('#scores thead th')].filter((h) => !h.hidden).map((h) => h.textContent)"
    columns = [c for c in browser.js(seen) if " mini " in c]
    assert len(columns) == 1
    assert columns[0].startswith("ks mini")


def test_audio_plays(browser: Chromium, page: Path) -> None:
    opened(browser, page)
    assert browser.js("document.querySelectorAll('audio').length") == 2
    length = browser.js(
        "new Promise((done, fail) => { const a = document.querySelector('audio');"
        "a.addEventListener('loadedmetadata', () => done(a.duration));"
        "a.addEventListener('error', () => fail(new Error('cannot play')));"
        "a.preload = 'auto'; a.load(); })"
    )
    assert length == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("width", "dark"), [(360, True), (390, False), (1280, True)])
def test_it_fits_and_asks_for_nothing(
    browser: Chromium, page: Path, width: int, dark: bool
) -> None:
    before = len(browser.said)
    browser.asked.clear()
    opened(browser, page, width=width, dark=dark)
    browser.js("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert browser.js(WIDE) <= 0
    outside = (
        "[...document.querySelectorAll('svg text')].filter((t) => { const b = t.getBoundingClientRect(),"
        "s = t.ownerSVGElement.getBoundingClientRect();"
        "return b.width > 0 && (b.left < s.left - 3 || b.right > s.right + 3); }).map((t) => t.textContent)"
    )
    assert browser.js(outside) == []  # no label is cut
    assert [u for u in browser.asked if not u.startswith(("file://", "data:", "about:"))] == []
    assert browser.said[before:] == []


def test_figures_are_legible_on_both_grounds(browser: Chromium, page: Path) -> None:
    contrast = """(() => {
      const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const light = (text) => rgb(text).map((v) => v / 255).map((v) =>
        v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const ground = light(getComputedStyle(document.querySelector('figure')).backgroundColor);
      const against = (v) => (Math.max(v, ground) + 0.05) / (Math.min(v, ground) + 0.05);
      const lines = [...document.querySelectorAll('figure path[class^=c]')].map((p) => against(light(getComputedStyle(p).stroke)));
      const texts = [...document.querySelectorAll('figure text')].map((t) => against(light(getComputedStyle(t).fill)));
      return [Math.min(...lines), Math.min(...texts), lines.length];
    })()"""
    for dark in (False, True):
        opened(browser, page, dark=dark)
        lines, texts, count = browser.js(contrast)
        assert count > 10
        assert lines >= 3
        assert texts >= 4.5


def test_everything_is_on_paper(browser: Chromium, page: Path) -> None:
    opened(browser, page)
    folded = "document.querySelectorAll('details:not([open])').length"
    count = browser.js(folded)
    assert count > 3
    browser.js("dispatchEvent(new Event('beforeprint'))")
    assert browser.js(folded) == 0
    browser.js("dispatchEvent(new Event('afterprint'))")
    assert browser.js(folded) == count
