"""``mynah clusters``: frames find their phones, clusters that follow sounds score high."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mynah.recipes import cli
from mynah.recipes.clusters import Args, phones_of, rows
from mynah.recipes.labelling.sources import MfccSource
from mynah.tasks.corpora.corpus import write_corpus
from mynah.tasks.corpora.utterance import Interval, Utterance

RATE = 16000
PHONES = {"a": 300.0, "i": 900.0, "s": 2700.0}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Sequences of three tones, each tone a phone; the last 0.1 s of each is labelled nothing."""
    generator = np.random.default_rng(0)
    utterances = []
    for index in range(12):
        order = generator.choice(list(PHONES), size=8)
        length = RATE // 5
        wav = np.concatenate(
            [0.1 * np.sin(2 * np.pi * PHONES[p] * np.arange(length) / RATE) for p in order]
        )
        wav = np.concatenate([wav, np.zeros(RATE // 10)]) + 1e-3 * generator.standard_normal(
            len(wav) + RATE // 10
        )
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, wav.astype(np.float32), RATE)
        utterances.append(
            Utterance(
                id=f"u{index}",
                path=str(path),
                start=0.0,
                duration=len(wav) / RATE,
                sample_rate=RATE,
                speaker=f"s{index % 6}",
                split="train" if index < 6 else "test",
                intervals={
                    "phones": tuple(
                        Interval(f"{p} x", 0.2 * n, 0.2 * (n + 1)) for n, p in enumerate(order)
                    )
                },
            )
        )
    write_corpus(tmp_path / "tones", utterances, name="tones", source="made", skipped={})
    return tmp_path / "tones"


def test_frames_lie_where_their_middle_does() -> None:
    utterance = Utterance(
        id="u", path="", start=0.0, duration=0.1, sample_rate=RATE,
        intervals={"phones": (Interval("a 1", 0.0, 0.034), Interval("b", 0.05, 0.1))},
    )  # fmt: skip
    phones, where_T = phones_of(utterance, "phones", MfccSource())
    assert phones == ["a", "b"]
    # middles at 5, 15, ... ms; the frame at 35 ms and the one at 45 ms lie between the stretches
    assert where_T.tolist() == [0, 0, 0, -1, -1, 1, 1, 1, 1, 1, -1]


def test_clusters_of_tones_are_the_tones(corpus: Path) -> None:
    ((name, clusters, frames, found),) = rows(Args(source="mfcc", corpus=corpus, clusters=12))
    assert (name, clusters) == ("mfcc", 12)
    assert frames == pytest.approx(6 * 160, abs=12)
    purity, cluster, pnmi = (interval.value for interval in found)
    assert purity > 0.85
    assert 0.1 < cluster < 0.95
    assert 0.6 < pnmi <= 1.0


def test_every_state_and_the_clusters_of_a_run(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [row[0] for row in rows(Args(source="hubert/tiny", corpus=corpus, clusters=8))]
    assert names == ["0", "1", "2", "3"]
    command = ["clusters", "hubert/tiny", "--corpus", str(corpus), "--layers", "-1"]
    assert cli.main([*command, "--clusters", "8"]) == 0
    assert "PNMI" in capsys.readouterr().out
    run = ["pretrain", "hubert/tiny", "--corpus", str(corpus), "--out", str(tmp_path / "run")]
    small = ["labels.clusters=[5]", "train.batch_seconds=8", "train.schedule.kind=constant"]
    assert cli.main([*run, *small, "--steps", "1"]) == 0
    labels = tmp_path / "run" / "iteration-1" / "labels"
    ((_, clusters, _, _),) = rows(Args(source="mfcc", corpus=corpus, labels=labels))
    assert clusters == json.loads((labels / "index.json").read_text())["clusters"] == 5
    capsys.readouterr()
    assert cli.main([*command, "--labels", str(labels)]) == 2
    assert "not of" in capsys.readouterr().err


def test_refusals(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["clusters", "mfcc", "--corpus", str(corpus)]
    assert cli.main([*command, "--tier", "words"]) == 2
    assert "no timed labels 'words'" in capsys.readouterr().err
    for option in ("--frames=0", "--frames=-5", "--clusters=0"):
        assert cli.main([*command, option]) == 2
        assert "--clusters and --frames must be at least 1" in capsys.readouterr().err
    assert cli.main([*command, "--layers", "1"]) == 2
    assert "no hidden states" in capsys.readouterr().err
