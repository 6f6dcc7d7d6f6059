"""SE: scores of estimates, and probes from end to end."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from enhancing import FACTS, SE, audio, bound, learnt, write_noisy
from voices import RATE, voice

from mynah.recipes.probing import job, trained
from mynah.recipes.probing.settings import Settings
from mynah.tasks.core import masking
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.metrics.separation import LOWEST, si_sdr
from mynah.tasks.metrics.speech_quality import pesq, stoi


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_noisy(tmp_path_factory.mktemp("se"))


# -- scoring --------------------------------------------------------------------------------


def test_scores_are_the_metrics_own(noisy: Corpus) -> None:
    task = bound(noisy)
    test = task.loaded.folds[""][2]
    wavs = [audio(u, "clean") + 0.1 * audio(u) for u in test.utterances]
    rows = task.rows(test, [w[None] for w in wavs])
    assert rows.unit == "speaker"
    assert rows.references[0] == test.utterances[0].labels["clean"]
    scores = task.score(rows.references, rows.predictions)
    clean = [audio(u, "clean") for u in test.utterances]
    pairs = list(zip(wavs, clean, strict=True))
    expected = {
        "pesq": np.mean([pesq(w, c, sample_rate=RATE) for w, c in pairs]),
        "stoi": np.mean([stoi(w, c, sample_rate=RATE) for w, c in pairs]),
        "si_sdri": np.mean([si_sdr(w, c) for w, c in pairs])
        - np.mean([si_sdr(audio(u), c) for u, c in zip(test.utterances, clean, strict=True)]),
    }
    assert scores == pytest.approx(expected)
    dev = task.loaded.folds[""][1]
    rows = task.rows(dev, [audio(u)[None] for u in dev.utterances])
    assert all(text.startswith("pesq=") and " " not in text for text in rows.predictions)
    assert task.dev_metric().score(rows.references, rows.predictions) > 1


def test_silence_has_the_lowest_scores_and_references_without_speech_none(noisy: Corpus) -> None:
    task = bound(noisy)
    clean, tiny = voice(150, 1.0, 0), np.full(RATE, 1e-6, np.float32)
    tiny[::2] *= -1
    wanted = ("pesq", "stoi", "si_sdri")
    mixture = clean + 0.01 * np.random.RandomState(0).standard_normal(RATE).astype(np.float32)
    silent = task.measured(np.zeros((1, RATE), np.float32), [clean], mixture, wanted)
    assert silent["pesq"] == 1.0
    assert silent["stoi"] == 0.0
    assert silent["si_sdri"] == pytest.approx(LOWEST - si_sdr(mixture, clean))
    silence = np.zeros(RATE, np.float32)
    nothing = task.measured(clean[None], [silence], mixture, wanted)
    assert nothing == dict.fromkeys(wanted)
    short = task.measured(clean[None, :5000], [clean[:5000]], mixture[:5000], wanted)
    assert short["stoi"] is None  # too short for it
    assert short["pesq"] == pytest.approx(4.64, abs=0.1)


def test_an_estimate_is_scored_once(noisy: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "REMEMBERED", 2)
    task = bound(noisy)
    calls: list[int] = []
    monkeypatch.setattr(task, "measured", lambda *args: calls.append(1) or {"pesq": 1.0})
    u, v, w = noisy.utterances()[:3]
    wav = np.ones((1, 100), np.float32)
    for one in (u, u, v, u):
        task._scores(one, wav, ("pesq",))
    assert len(calls) == 2
    task._scores(u, 2 * wav, ("pesq",))
    assert len(calls) == 3
    task._scores(w, wav, ("pesq",))
    task._scores(u, wav, ("pesq",))  # was forgotten
    assert len(calls) == 5


# -- end to end -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["fixed", "superb"])
def test_a_probe_end_to_end(noisy: Corpus, tmp_path: Path, protocol: str) -> None:
    settings = Settings(
        protocol=protocol, steps=4, learning_rates=(1e-2, 1e-3), heads="small",  # type: ignore[arg-type]
    )  # fmt: skip
    (result,) = job.run("fbank", "se", noisy.folder, tmp_path / "out", settings=settings)
    assert set(result.metrics) == {"pesq", "stoi", "si_sdri"}
    assert 1 <= result.main.value <= 4.64
    assert result.main.n == 4
    assert result.skipped == {}
    (name,) = result.heads.values()
    _, task, probe = trained.load(tmp_path / "out" / "fbank-base" / name)
    u = noisy.utterances()[0]
    with torch.no_grad():
        (shown,) = task.predict(probe, torch.randn(1, 1, 98, 240), torch.tensor([98]), [u])
    assert np.isfinite(shown.wavs["clean"]).all()


def test_it_learns_to_take_noise_away(noisy: Corpus) -> None:
    task = SE(heads="small")
    task.load(noisy.utterances())
    task.bind(dataclasses.replace(FACTS, dim=257, layers=1))
    batch = task.loaded.folds[""][0].utterances
    said = learnt(task, batch, lr=3e-3, updates=15)
    gains = [task.measured(w, [audio(u, "clean")], audio(u), ("si_sdri",))["si_sdri"]
             for w, u in zip(said, batch, strict=True)]  # fmt: skip
    assert np.mean(gains) > 1.0
