"""``mynah convert`` after a crash between the two files that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

from mynah.recipes import convert


def engine(method: str, level: float) -> Any:
    """Return what says a constant, and what of an engine decides a conversion."""

    def says(*given: object, **options: object) -> Any:
        wav_S = np.full(16000, level, np.float32)
        return SimpleNamespace(wav_S=wav_S, sample_rate=16000, seconds=1.0, warnings=(), record={})

    vocoder = SimpleNamespace(identity={"method": "none"})
    return SimpleNamespace(identity={"method": method}, vocoder=vocoder, convert=says)


def test_what_lies_there_is_known_whichever_file_came_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out, page = tmp_path / "a.wav", tmp_path / "x.wav", tmp_path / "x.wav.json"
    soundfile.write(source, np.linspace(-0.5, 0.5, 16000), 16000)

    def run(method: str, level: float) -> str:
        return convert.one(engine(method, level), convert.Args(), source, [source], out)

    def crash(self: Path, target: Path) -> Path:
        if Path(target) == out:
            raise SystemExit("power is gone")
        return replace(self, target)

    replace = Path.replace

    def crashed(method: str, level: float) -> None:
        with monkeypatch.context() as patch, pytest.raises(SystemExit, match="power"):
            patch.setattr(Path, "replace", crash)
            run(method, level)

    crashed("one", 0.1)  # nothing was there
    assert (out.exists(), page.exists()) == (False, True)
    run("one", 0.1)
    first, about = out.read_bytes(), json.loads(page.read_text())
    crashed("two", 0.2)
    crashed("three", 0.3)  # again, before the first was mended
    assert out.read_bytes() == first
    assert json.loads(page.read_text())["replaces"] == about["sha256"]
    assert "in place of a conversion of other settings" in run("three", 0.3)
    assert out.read_bytes() != first
    assert "there already" in run("three", 0.3)
    out.write_bytes(b"somebody's own")
    with pytest.raises(ValueError, match="no conversion of ours"):
        run("three", 0.3)
