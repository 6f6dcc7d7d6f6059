"""``mynah pictures``: a page in a wide and a narrow window, light and dark."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

sys.path.append(str(Path(__file__).parent / "doubles"))
from resulting import ACCURACY, words, write

from mynah.recipes import cli, pictures

PAGE = """<!doctype html><meta charset="utf-8"><style>
body { margin: 0; background: rgb(250, 240, 10); }
@media (prefers-color-scheme: dark) { body { background: rgb(10, 20, 30); } }
div { height: 100px; background: rgb(200, 0, 0); }
@media (max-width: 400px) { div { background: rgb(0, 0, 200); } }
</style><div></div>"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "site" / "index.html"
    path.parent.mkdir()
    path.write_text(PAGE)
    return path


@pytest.mark.skipif(
    not any(map(shutil.which, pictures.BROWSERS)),
    reason=f"no browser here: install one of {', '.join(pictures.BROWSERS)}",
)
def test_a_picture_of_each_way_to_read(page: Path, tmp_path: Path) -> None:
    out = tmp_path / "pictures"
    assert cli.main(["pictures", str(page), "--out", str(out)]) == 0
    seen = {}
    for path in sorted(out.iterdir()):
        with Image.open(path) as picture:
            rgb = picture.convert("RGB")
            corner, below = rgb.getpixel((5, 5)), rgb.getpixel((rgb.width - 5, rgb.height - 5))
            seen[path.name] = (rgb.size, corner, below)
    light, dark, red, blue = (250, 240, 10), (10, 20, 30), (200, 0, 0), (0, 0, 200)
    assert seen == {
        "site-wide-light.png": ((1280, 900), red, light),
        "site-wide-dark.png": ((1280, 900), red, dark),
        "site-narrow-light.png": ((390, 844), blue, light),
        "site-narrow-dark.png": ((390, 844), blue, dark),
    }


@pytest.mark.skipif(
    not any(map(shutil.which, pictures.BROWSERS)),
    reason=f"no browser here: install one of {', '.join(pictures.BROWSERS)}",
)
def test_report_and_site_of_a_folder_of_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, wrong in (("good", 1), ("bad", 3)):
        write(tmp_path / "r", "ks", words(wrong), ["accuracy"], ACCURACY, upstream=name)
    monkeypatch.setattr(pictures, "SIZES", {"narrow": (390, 844)})
    out = tmp_path / "pictures"
    before = sorted((tmp_path / "r").rglob("*"))
    assert cli.main(["pictures", str(tmp_path / "r"), "--out", str(out)]) == 0
    assert sorted((tmp_path / "r").rglob("*")) == before
    found = {path.name: path for path in out.iterdir()}
    assert found.keys() == {
        f"{page}-narrow-{theme}.png" for page in ("report", "site") for theme in pictures.THEMES
    }
    for name, path in found.items():
        assert path.stat().st_size <= pictures.MOST
        with Image.open(path) as picture:
            grey = picture.convert("L")
        assert (sum(grey.getdata()) > 128 * grey.width * grey.height) == ("light" in name)
        assert len(set(grey.getdata())) > 4  # something is written there


def test_a_picture_that_is_too_large_has_fewer_colours(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser that draws noise, which does not compress."""
    noise = Image.effect_noise((500, 1044), 90).convert("RGB")

    def draw(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        (path,) = (part.partition("=")[2] for part in command if part.startswith("--screenshot="))
        noise.save(path)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(pictures, "browser", lambda: "drawer")
    monkeypatch.setattr(subprocess, "run", draw)
    colours = {}
    for most in (10**9, 190_000):
        monkeypatch.setattr(pictures, "MOST", most)
        pictures.shoot(page, tmp_path / "x.png", width=390, height=844, theme=1)
        with Image.open(tmp_path / "x.png") as picture:
            colours[most] = len(picture.getcolors())
    assert colours == {10**9: 64, 190_000: 16}


def test_what_cannot_be_drawn(
    page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ["--out", str(tmp_path / "out")]
    assert cli.main(["pictures", str(tmp_path / "nothing.html"), *out]) == 2
    assert "no page" in capsys.readouterr().err
    twin = tmp_path / "site.html"
    twin.write_text(PAGE)
    assert cli.main(["pictures", str(page), str(twin), *out]) == 2
    assert "two pages would be called 'site'" in capsys.readouterr().err
    assert cli.main(["pictures", str(tmp_path), str(page.parent), *out]) == 2
    assert "one folder of results at a time" in capsys.readouterr().err
    monkeypatch.setattr(pictures, "BROWSERS", ("no-such-browser",))
    assert cli.main(["pictures", str(page), *out]) == 2
    assert "no browser to draw with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
