"""SE, and what it shares with SS: data, the loss against s3prl's formula, waveforms."""

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
from enhancing import FACTS, SE, audio, bound, write_noisy
from voices import RATE

from mynah.downstream.core.featurizer import Featurizer, Probe
from mynah.tasks import se
from mynah.tasks.core.contract import DataError
from mynah.tasks.core.sources import Waves, source
from mynah.tasks.corpora.corpus import Corpus


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_noisy(tmp_path_factory.mktemp("se"))


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
