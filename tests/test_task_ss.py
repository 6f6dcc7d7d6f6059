"""SS: sources and splits, the permutation-invariant loss, waveforms, scores, a tiny probe."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from enhancing import audio, learnt
from voices import RATE, write_voices

from mynah.recipes.probing import job, trained
from mynah.recipes.probing.settings import Settings
from mynah.tasks import ss
from mynah.tasks.core.contract import DataError, Facts
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.mixture_plan import Options
from mynah.tasks.corpora.mixtures import build
from mynah.tasks.metrics.separation import LOWEST, separation

SS = ss.TASK
FACTS = Facts(dim=4, layers=2, stride=160, sample_rate=RATE)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("ss")
    voices = write_voices(folder / "voices", takes=2)
    return build(folder / "mixed", voices, Options(kind="separation", count=12))


def bound(mixed: Corpus, protocol: str = "fixed", **facts: int):  # type: ignore[no-untyped-def]
    task = SS(protocol)  # type: ignore[arg-type]
    task.load(mixed.utterances())
    task.bind(dataclasses.replace(FACTS, **facts))
    return task


# -- data -----------------------------------------------------------------------------------


def test_the_corpus_says_how_many_sources(mixed: Corpus) -> None:
    data = SS().load(mixed.utterances())
    assert data.classes == ("s1", "s2")
    assert [len(s.utterances) for s in data.folds[""]] == [6, 3, 3]
    assert data.notes == ("splits are the corpus's own", "2 sources")


def test_three_sources_make_three_masks(mixed: Corpus) -> None:
    corpus = [dataclasses.replace(u, labels={**u.labels, "s3": u.labels["s1"]})
              for u in mixed.utterances()]  # fmt: skip
    task = SS()
    assert task.load(corpus).classes == ("s1", "s2", "s3")
    task.bind(FACTS)
    assert len(task.head(4).head.masks) == task.outputs == 3  # type: ignore[union-attr,arg-type]


def test_fixed_scores_at_most_200_of_dev(mixed: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ss.TASK, "DEV_AT_MOST", 2)
    assert len(SS().load(mixed.utterances()).folds[""][1].utterances) == 2
    assert len(SS("superb").load(mixed.utterances()).folds[""][1].utterances) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s1": None}, "ss needs the label s1 on every utterance; without it"),
        ({"s2": None}, "some mixtures have the sources s1, s2, not test-"),
        ({"s2": "nowhere.wav"}, "do not go together: .*nowhere.wav"),
        ({"s1_speaker": "v0"}, "train and test share the speakers v0"),
        ({f"s{i}": "x.wav" for i in range(1, 6)}, "have the sources s1, s2, s3, s4, s5, not"),
    ],
)
def test_bad_data_is_named(mixed: Corpus, change: dict, message: str) -> None:  # type: ignore[type-arg]
    corpus = mixed.utterances()
    at = next(i for i, u in enumerate(corpus) if u.split == "test")
    labels = {k: v for k, v in {**corpus[at].labels, **change}.items() if v}
    corpus[at] = dataclasses.replace(corpus[at], labels=labels)
    with pytest.raises(DataError, match=message):
        SS().load(corpus)


def test_one_source_or_five_are_not_separated(mixed: Corpus) -> None:
    one = [dataclasses.replace(u, labels={"s1": u.labels["s1"]}) for u in mixed.utterances()]
    with pytest.raises(DataError, match="2 to 4 sources can be separated, mixtures have 1"):
        SS().load(one)
    five = [dataclasses.replace(u, labels=dict.fromkeys((f"s{i}" for i in range(1, 6)), u.labels["s1"]))
            for u in mixed.utterances()]  # fmt: skip
    with pytest.raises(DataError, match="mixtures have 5"):
        SS().load(five)


def test_mixtures_that_do_not_say_who_speaks(mixed: Corpus) -> None:
    bare = [dataclasses.replace(u, labels={k: u.labels[k] for k in ("s1", "s2")})
            for u in mixed.utterances()]  # fmt: skip
    assert len(SS().load(bare).folds[""][2].utterances) == 3


# -- the loss -------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["superb", "fixed"])
def test_the_loss_by_an_independent_formula(mixed: Corpus, protocol: str) -> None:
    import librosa

    task = bound(mixed, protocol)
    batch = task.loaded.folds[""][0].utterances[:3]
    (frames,) = task.head_inputs(batch)
    torch.manual_seed(0)
    masks = torch.rand(2, 3, int(frames.max()), 2, 257)
    losses = task.losses(masks, frames, batch)
    log = np.log1p if protocol == "fixed" else np.asarray
    for b, u in enumerate(batch):
        x, *ys = (
            librosa.stft(audio(u, s), n_fft=512, hop_length=160).T for s in (None, "s1", "s2")
        )
        targets = [np.abs(y) * np.maximum(np.cos(np.angle(x) - np.angle(y)), 0) for y in ys]
        for k in range(2):
            own = masks[k, b, : frames[b]].numpy()
            both = [
                sum(((own[:, i] * log(np.abs(x)) - log(t)) ** 2).sum() for i, t in enumerate(order))
                for order in (targets, targets[::-1])
            ]
            assert float(losses[k, b]) == pytest.approx(min(both) / 2 / len(x), rel=1e-3)


def test_ideal_masks_in_any_order_have_a_low_loss(mixed: Corpus) -> None:
    task = bound(mixed)
    (u,) = batch = task.loaded.folds[""][0].utterances[:1]
    (frames,) = task.head_inputs(batch)
    x, a, b = (task.stft(torch.from_numpy(audio(u, s))[None])[0] for s in (None, "s1", "s2"))
    ideal = torch.stack([y.abs().log1p() / (x.abs().log1p() + 1e-9) for y in (a, b)], 1)
    ideal = ideal.clamp(0, 1)[None, None]
    low = task.losses(torch.cat([ideal, ideal.flip(3)]), frames, batch)
    high = task.losses(torch.full_like(ideal, 0.5), frames, batch)
    assert float(low[0]) == pytest.approx(float(low[1]))
    assert float(low[0]) < float(high) / 2
    wavs = task.decode(ideal[0], frames, batch)[0]
    found = separation([*wavs], [audio(u, "s1"), audio(u, "s2")], audio(u))
    assert found.si_sdri > 5
    assert found.order == (0, 1)


# -- scoring --------------------------------------------------------------------------------


def test_scores_are_the_metrics_own(mixed: Corpus) -> None:
    task = bound(mixed)
    test = task.loaded.folds[""][2]
    wavs = [np.stack([audio(u, s) + 0.2 * audio(u) for s in ("s2", "s1")]) for u in test.utterances]
    rows = task.rows(test, wavs)
    expected = [
        separation([*w], [audio(u, "s1"), audio(u, "s2")], audio(u))
        for u, w in zip(test.utterances, wavs, strict=True)
    ]
    scores = task.score(rows.references, rows.predictions)
    assert list(scores) == ["si_sdri", "si_sdr"]
    assert scores["si_sdri"] == pytest.approx(np.mean([e.si_sdri for e in expected]))
    assert scores["si_sdr"] == pytest.approx(np.mean([e.si_sdr for e in expected]))
    assert scores["si_sdri"] > 5
    dev = task.loaded.folds[""][1]
    rows = task.rows(dev, [np.stack([audio(u)] * 2) for u in dev.utterances])
    assert task.dev_metric().score(rows.references, rows.predictions) == pytest.approx(0, abs=1e-6)
    assert "si_sdr=" not in rows.predictions[0]


def test_silence_is_scored_as_the_lowest_and_a_silent_source_not_at_all(mixed: Corpus) -> None:
    task = bound(mixed)
    u = mixed.utterances()[0]
    sources, mixture = [audio(u, "s1"), audio(u, "s2")], audio(u)
    silent = np.zeros((2, len(mixture)), np.float32)
    assert task.measured(silent, sources, mixture, ("si_sdr",)) == {"si_sdr": LOWEST}
    nothing = task.measured(np.stack(sources), [sources[0], silent[0]], mixture, ("si_sdri",))
    assert nothing == {"si_sdri": None}


# -- end to end -----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["fixed", "superb"])
def test_a_probe_end_to_end(mixed: Corpus, tmp_path: Path, protocol: str) -> None:
    settings = Settings(
        protocol=protocol, steps=4, learning_rates=(1e-2, 1e-3), heads="small",  # type: ignore[arg-type]
    )  # fmt: skip
    (result,) = job.run("fbank", "ss", mixed.folder, tmp_path / "out", settings=settings)
    assert set(result.metrics) == {"si_sdri", "si_sdr"}
    assert -400 < result.main.value < 40
    assert result.main.n == 3
    (name,) = result.heads.values()
    card, task, probe = trained.load(tmp_path / "out" / "fbank-base" / name)
    assert card.state == {"sources": ["s1", "s2"]}
    u = mixed.utterances()[0]
    length = 1 + (len(audio(u)) - 400) // 160
    with torch.no_grad():
        (shown,) = task.predict(probe, torch.randn(1, 1, length, 240), torch.tensor([length]), [u])
    assert list(shown.wavs) == ["s1", "s2"]
    assert shown.text == f"s1, s2: {len(audio(u)) / RATE:.2f} s of audio"
    assert json.dumps(shown.json)


def test_it_learns_to_take_voices_apart(mixed: Corpus) -> None:
    task = SS(heads="small")
    task.load(mixed.utterances())
    task.bind(dataclasses.replace(FACTS, dim=257, layers=1))
    batch = task.loaded.folds[""][0].utterances[:4]
    said = learnt(task, batch, lr=5e-3, updates=40)
    gains = [
        task.measured(w, [audio(u, "s1"), audio(u, "s2")], audio(u), ("si_sdri",))["si_sdri"]
        for w, u in zip(said, batch, strict=True)
    ]
    assert np.mean(gains) > 3.0
