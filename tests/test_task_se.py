"""SE, and what it shares with SS: data, the loss against s3prl's formula, waveforms, scores, a tiny probe."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from voices import RATE, voice, write_voices

from mynah.downstream.core.featurizer import Featurizer, Probe
from mynah.recipes.probing import job, trained
from mynah.recipes.probing.settings import Settings
from mynah.tasks import se
from mynah.tasks.core import masking
from mynah.tasks.core.contract import DataError, Facts
from mynah.tasks.core.sources import Waves, source
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.mixture_plan import Options
from mynah.tasks.corpora.mixtures import build
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.separation import LOWEST, si_sdr
from mynah.tasks.metrics.speech_quality import pesq, stoi

SE = se.TASK
FACTS = Facts(dim=4, layers=2, stride=160, sample_rate=RATE)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("se")
    voices = write_voices(folder / "voices", takes=2)
    return build(folder / "noisy", voices, Options(kind="enhancement", snr=(0.0, 5.0)))


def bound(noisy: Corpus, protocol: str = "fixed", **facts: int):  # type: ignore[no-untyped-def]
    task = SE(protocol)  # type: ignore[arg-type]
    task.load(noisy.utterances())
    task.bind(dataclasses.replace(FACTS, **facts))
    return task


def audio(u: Utterance, label: str | None = None) -> np.ndarray:
    path = u.path if label is None else str(Path(u.path).parent / u.labels[label])
    return soundfile.read(path, dtype="float32")[0]


# -- data -----------------------------------------------------------------------------------


def test_parts_share_no_speaker(noisy: Corpus) -> None:
    data = SE().load(noisy.utterances())
    assert data.classes == ("clean",)
    parts = [{u.speaker for u in s.utterances} for s in data.folds[""]]
    assert [len(p) for p in parts] == [4, 2, 2]
    made = SE(splits="made").load(noisy.utterances())
    assert "made here" in made.notes[0]


def test_fixed_scores_at_most_100_of_dev(noisy: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(se.TASK, "DEV_AT_MOST", 3)
    fixed, superb = (SE(p).load(noisy.utterances()) for p in ("fixed", "superb"))  # type: ignore[arg-type]
    assert len(fixed.folds[""][1].utterances) == 3
    assert fixed.notes[1] == "3 of 4 dev utterances are scored"
    assert len(superb.folds[""][1].utterances) == 4
    again = SE().load(noisy.utterances()[::-1])
    assert again.folds[""][1] == fixed.folds[""][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": {}}, "se needs the label clean on every utterance; without it"),
        ({"labels": {"clean": "nowhere.wav"}}, "do not go together: .*nowhere.wav"),
        ({"labels": {"clean": "short.wav"}}, "clean has 16000 Hz, 100 samples, 1 channels, the utterance"),
        ({"speaker": "v0"}, "share speaker v0"),
        ({"duration": 0.2}, r"PESQ can score 0.25 to 19 s; dev and test have .*\(0.20 s\)"),
    ],
)  # fmt: skip
def test_bad_data_is_named(noisy: Corpus, change: dict, message: str) -> None:  # type: ignore[type-arg]
    corpus = noisy.utterances()
    folder = Path(corpus[0].path).parent
    soundfile.write(folder / "short.wav", np.zeros(100, np.float32), RATE)
    at = next(i for i, u in enumerate(corpus) if u.split == "test")
    corpus[at] = dataclasses.replace(corpus[at], **change)
    with pytest.raises(DataError, match=message):
        SE().load(corpus)


def test_missing_packages_are_said_at_once(noisy: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"PESQ is computed by the package pesq.*mynah\[audio\]"):
        SE().load(noisy.utterances())


def test_upstreams_that_cannot_be(noisy: Corpus) -> None:
    with pytest.raises(DataError, match="PESQ is of 16000 Hz, this upstream of 8000"):
        bound(noisy, sample_rate=8000)
    with pytest.raises(DataError, match="needs a stride below 512 samples, this upstream has 640"):
        bound(noisy, "superb", stride=640)
    assert bound(noisy, stride=640).stft.n_fft == 2048
    assert [bound(noisy, p, stride=s).stft.n_fft for p, s in
            (("superb", 160), ("superb", 320), ("fixed", 160), ("fixed", 320))] == [512, 512, 512, 1024]  # fmt: skip


def test_heads_are_those_of_the_protocols(noisy: Corpus) -> None:
    def shape(protocol: str, heads: str = "protocol"):  # type: ignore[no-untyped-def]
        task = SE(protocol, heads=heads)  # type: ignore[arg-type]
        task.load(noisy.utterances())
        task.bind(FACTS)
        head = task.head(4).head  # type: ignore[union-attr]
        lstms = head.layers
        return len(lstms), lstms[0].lstm.hidden_size, head.dropout.p, head.activation, len(head.masks)  # fmt: skip

    assert shape("superb") == (3, 896, 0.5, torch.relu, 1)
    assert shape("fixed") == (3, 256, 0.1, torch.sigmoid, 1)
    assert shape("fixed", "small") == (1, 128, 0.1, torch.sigmoid, 1)
    assert shape("superb", "small")[:2] == (1, 128)


# -- audio ----------------------------------------------------------------------------------


def test_references_may_be_relative_or_absolute(noisy: Corpus) -> None:
    u = noisy.utterances()[0]
    absolute = str((Path(u.path).parent / u.labels["clean"]).resolve())
    wave = Waves(RATE)(source(u, "clean"))
    assert torch.equal(wave, torch.from_numpy(audio(u, "clean")))
    moved = dataclasses.replace(u, labels={"clean": absolute}, start=0.1, duration=0.5)
    cut = Waves(RATE)(source(moved, "clean"))
    assert torch.equal(cut, wave[1600:9600])
    with pytest.raises(DataError, match="has no s1"):
        source(u, "s1")


def test_audio_is_kept_within_bounds(noisy: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    from mynah.tasks.core import sources

    read, calls = sources.read, []
    monkeypatch.setattr(sources, "read", lambda u, rate: calls.append(u.id) or read(u, rate))
    a, b, c = noisy.utterances()[:3]
    waves = Waves(RATE, kept=150_000)  # two of about 64 kB
    for u in (a, b, a, c, a, b):
        waves(u)
    assert calls == [a.id, b.id, c.id, b.id]
    gone = dataclasses.replace(a, path="/nowhere.wav")
    with pytest.raises(DataError, match=f"{a.id}: '/nowhere.wav': cannot be opened"):
        waves(gone)


# -- the loss -------------------------------------------------------------------------------


def s3prls(masks: torch.Tensor, mixture: np.ndarray, clean: np.ndarray) -> float:
    """NPSM by squares, as the first recipe defines it, for one utterance."""
    import librosa

    x, y = (librosa.stft(w, n_fft=512, hop_length=160).T for w in (mixture, clean))
    target = np.abs(y) * np.maximum(np.cos(np.angle(x) - np.angle(y)), 0)
    return float(((masks.numpy() * np.abs(x) - target) ** 2).sum()) / len(x)


def second(masks: torch.Tensor, mixture: np.ndarray, clean: np.ndarray) -> float:
    """Absolute differences of log1p, as the second recipe defines it."""
    import librosa

    x, y = (librosa.stft(w, n_fft=512, hop_length=160).T for w in (mixture, clean))
    apart = masks.numpy() * np.log1p(np.abs(x)) - np.log1p(np.abs(y))
    return float(np.abs(apart).sum()) / len(x)


@pytest.mark.parametrize(("protocol", "formula"), [("superb", s3prls), ("fixed", second)])
def test_the_loss_by_an_independent_formula(noisy: Corpus, protocol: str, formula) -> None:  # type: ignore[no-untyped-def]
    task = bound(noisy, protocol)
    batch = task.loaded.folds[""][0].utterances[:3]
    (frames,) = task.head_inputs(batch)
    assert frames.tolist() == [1 + len(audio(u)) // 160 for u in batch]
    torch.manual_seed(0)
    masks = torch.rand(2, 3, int(frames.max()), 1, 257)
    losses = task.losses(masks, frames - 2, batch)
    assert losses.shape == (2, 3)
    for k in range(2):
        for b, u in enumerate(batch):
            expected = formula(masks[k, b, : frames[b], 0], audio(u), audio(u, "clean"))
            assert float(losses[k, b]) == pytest.approx(expected, rel=1e-3)


# -- decoding -------------------------------------------------------------------------------


def test_masks_become_waveforms(noisy: Corpus) -> None:
    for protocol in ("fixed", "superb"):
        task = bound(noisy, protocol)
        batch = task.loaded.folds[""][2].utterances[:2]
        (frames,) = task.head_inputs(batch)
        ones = torch.ones(2, int(frames.max()), 1, 257)
        for u, wavs in zip(batch, task.decode(ones, frames, batch), strict=True):
            assert wavs.shape == (1, len(audio(u)))
            assert wavs.dtype == np.float32
            covered = (len(audio(u)) // 160) * 160
            np.testing.assert_allclose(wavs[0, :covered], audio(u)[:covered], atol=1e-4)
        half = task.decode(0.5 * ones, frames, batch)[0][0]
        level = np.abs(half).max() / np.abs(audio(batch[0])).max()
        assert level == pytest.approx(0.5, abs=1e-3) if protocol == "superb" else level < 0.5


def test_superb_cuts_off_bursts(noisy: Corpus) -> None:
    task = bound(noisy, "superb", stride=320)
    (u,) = task.loaded.folds[""][2].utterances[:1]
    u = dataclasses.replace(u, duration=(320 * 40 + 250) / RATE)
    (frames,) = task.head_inputs([u])
    torch.manual_seed(0)
    (wavs,) = task.decode(torch.rand(1, int(frames), 1, 257), frames, [u])
    assert not wavs[0, -5:].any()
    fixed = bound(noisy, "fixed", stride=320)
    bins = fixed.stft.bins
    (whole,) = fixed.decode(torch.rand(1, int(frames), 1, bins), frames, [u])
    assert whole[0, -5:].any()


def test_a_head_is_given_the_frames_of_the_transform(noisy: Corpus) -> None:
    task = bound(noisy)
    batch = task.loaded.folds[""][2].utterances[:2]
    torch.manual_seed(0)
    probe = Probe(Featurizer(2), task.head(4)).eval()
    lengths = torch.tensor([98, 108])
    with torch.no_grad():
        said = task.infer(probe, torch.randn(2, 2, 108, 4), lengths, batch)
        shown = task.predict(probe, torch.randn(2, 2, 108, 4), lengths, batch)
    assert [w.shape[1] for w in said] == [len(audio(u)) for u in batch]
    assert list(shown[0].wavs) == ["clean"]
    assert shown[0].wavs["clean"].shape == (len(audio(batch[0])),)
    assert json.loads(json.dumps(shown[0].json))["sources"] == ["clean"]
    with pytest.raises(TypeError, match="got text"):
        task.present("text", batch[0])
    with pytest.raises(ValueError, match="frames of features but"):
        task.infer(probe, torch.randn(2, 2, 108, 4), torch.tensor([90, 108]), batch)


def test_state_and_back(noisy: Corpus) -> None:
    other = SE()
    other.restore(json.loads(json.dumps(bound(noisy).state())))
    other.bind(FACTS)
    assert other.loaded.classes == ("clean",)
    u = noisy.utterances()[0]
    (frames,) = other.head_inputs([u])
    (wavs,) = other.decode(torch.ones(1, int(frames), 1, 257), frames, [u])
    assert wavs.shape == (1, len(audio(u)))


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
    (frames,) = task.head_inputs(batch)
    spectra = torch.zeros(1, len(batch), int(frames.max()), 257)
    for row, u in enumerate(batch):
        spectra[0, row, : frames[row]] = task.stft(task.wave(u)[None])[0].abs().log1p()
    torch.manual_seed(0)
    probe = Probe(Featurizer(1), task.head(257))
    optimizer = torch.optim.Adam(probe.parameters(), lr=3e-3)
    for _ in range(15):
        optimizer.zero_grad()
        masks = probe.head(probe.featurizer(spectra), frames, frames)
        task.losses(masks[None], frames, batch).mean().backward()
        optimizer.step()
    with torch.no_grad():
        said = task.infer(probe.eval(), spectra, frames, batch)
    gains = [task.measured(w, [audio(u, "clean")], audio(u), ("si_sdri",))["si_sdri"]
             for w, u in zip(said, batch, strict=True)]  # fmt: skip
    assert np.mean(gains) > 1.0
