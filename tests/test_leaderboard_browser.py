"""The leaderboard in a real browser, from the disk: sorting, filtering, links, two models compared."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent / "doubles"))
import chromium
from chromium import Chromium
from resulting import ACCURACY, PER, PHONES, perfect, words, write

from mynah.recipes import cli
from mynah.recipes.site.entries import slug_of

pytestmark = pytest.mark.skipif(
    chromium.found() is None, reason=f"no browser here: install one of {', '.join(chromium.NAMES)}"
)
NAMES = "[...document.querySelectorAll('#models tbody tr')].filter((r) => !r.hidden).map((r) => r.cells[0].dataset.sort)"
WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaderboard")
    results = folder / "results"
    for name, wrong in (("middle", 2), ("good", 1), ("bad", 3)):
        write(results, "ks", words(wrong), ["accuracy"], ACCURACY, upstream=name, fingerprint=name)
    write(results, "pr", PHONES, ["per"], PER, upstream="bad", fingerprint="bad")
    write(results, "st", [("s", "a b c d", "a b c d")] * 6, ["bleu"],
          {"bleu": "bleu|case:mixed|tok:13a|v1"}, upstream="bad", fingerprint="bad")  # fmt: skip
    perfect(folder / "whole", protocol="fixed")
    out = folder / "site"
    command = ["leaderboard", str(results), str(folder / "whole"), "--with-published"]
    assert cli.main([*command, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with Chromium() as one:
        yield one


def opened(browser: Chromium, address: str, **size: Any) -> None:
    browser.open(address, **size)
    browser.until(f"location.href.startsWith('{address}') && document.readyState === 'complete'")


def head(title: str) -> str:
    return f"[...document.querySelectorAll('#models thead button')].find((b) => b.textContent.startsWith('{title}'))"


def test_sorting(browser: Chromium, site: Path) -> None:
    opened(browser, (site / "index.html").as_uri())
    browser.click("document.querySelector('#published')")
    browser.click(head("ks mini"))
    assert browser.js(NAMES) == [
        "perfect",
        "good",
        "middle",
        "bad",
    ]  # more is better, so the most first
    assert browser.js(f"{head('ks mini')}.parentElement.ariaSort") == "descending"
    browser.click(head("ks mini"))
    assert browser.js(NAMES) == ["bad", "middle", "good", "perfect"]
    browser.click(head("pr mini"))
    assert browser.js(NAMES)[:2] == ["perfect", "bad"]  # less is better; those without come last
    browser.click(head("model"))
    assert browser.js(NAMES) == ["bad", "good", "middle", "perfect"]


def test_filtering_and_views(browser: Chromium, site: Path) -> None:
    opened(browser, (site / "index.html").as_uri())
    total = len(browser.js(NAMES))
    assert total > 15
    browser.js(
        "document.querySelector('#filter').value = 'hubert base';"
        "document.querySelector('#filter').dispatchEvent(new Event('input'))"
    )
    assert browser.js(NAMES) == ["HuBERT Base"]
    assert browser.js("document.querySelector('#shown').textContent") == "1 shown"
    seen = "[...document.querySelectorAll('#models thead th')].filter((h) => !h.hidden).map((h) => h.textContent)"
    assert any(h.startswith("st mini") for h in browser.js(seen))
    assert not any("superb_s (public)" in h for h in browser.js(seen))
    assert any("superb_s (paper)" in h for h in browser.js(seen))  # what the rows are in order of
    browser.click("document.querySelector('input[value=paper]')")
    assert "superb_s (paper)" in browser.js(seen)
    assert not any(h.startswith("st mini") for h in browser.js(seen))  # not a task of the paper's
    browser.click("document.querySelector('input[value=public]')")
    assert any(h.startswith("st mini") for h in browser.js(seen))
    assert not any(h.startswith("ks mini") for h in browser.js(seen))


def test_links_lead_somewhere(browser: Chromium, site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 6
    for page in pages:
        opened(browser, page.as_uri())
        for link in browser.js("[...document.querySelectorAll('a')].map((a) => a.href)"):
            assert Path(link.removeprefix("file://")).is_file(), (page, link)


def test_two_models_side_by_side(browser: Chromium, site: Path) -> None:
    good, bad = slug_of("good", "good"), slug_of("bad", "bad")
    cells = "[...document.querySelector('#compared tbody tr').cells].map((c) => c.textContent)"
    opened(browser, (site / "compare.html").as_uri() + f"#a={good}&b={bad}")
    assert browser.js(cells) == [
        "ks mini accuracy↑ fixed", "80.00", "40.00", "40.00 [40.00, 40.00]",
        browser.js(cells)[4],
    ]  # fmt: skip
    assert browser.js(cells)[4].startswith("p = 0.0")
    assert browser.js("document.querySelector('#compared .better').textContent").startswith("40.00")
    browser.js(
        f"document.querySelector('#first').value = '{bad}';"
        f"document.querySelector('#second').value = '{good}';"
        "document.querySelector('#second').dispatchEvent(new Event('change'))"
    )
    assert browser.js(cells)[3] == "-40.00 [-40.00, -40.00]"  # turned round
    assert browser.js("location.hash") == f"#a={bad}&b={good}"
    rows = "[...document.querySelectorAll('#compared tbody tr')].map((r) => r.cells[4].textContent)"
    assert browser.js(rows)[1] == ""  # a task that only one of them has


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_and_asks_for_nothing(browser: Chromium, site: Path, width: int) -> None:
    before = len(browser.said)
    for page in sorted(site.rglob("*.html")):
        browser.asked.clear()
        opened(browser, page.as_uri(), width=width, dark=width == 390)
        assert browser.js(WIDE) <= 0, page
        assert [url for url in browser.asked if not url.startswith("file://")] == []
        assert browser.js(
            "[...document.querySelectorAll('svg')].every((s) => s.getAttribute('aria-label'))"
        )
        assert browser.js(
            "[...document.querySelectorAll('table')].every((t) => t.caption && t.querySelector('th[scope=col]'))"
        )
    assert browser.said[before:] == []
