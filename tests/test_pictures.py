"""``mynah pictures``: a page in a wide and a narrow window, light and dark."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image

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
    monkeypatch.setattr(pictures, "BROWSERS", ("no-such-browser",))
    assert cli.main(["pictures", str(page), *out]) == 2
    assert "no browser to draw with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
