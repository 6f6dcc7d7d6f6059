"""The race against s3prl: the same losses, the same accuracy, honest arithmetic."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from tones import write_tones

from mynah.recipes import speed_probe
from mynah.recipes.probing.race import Side, clips_of
from mynah.recipes.speed_probe import Args, Report

SMALL = Args(clips=20, test_clips=10, batch=8, passes=3, variant="tiny-wav", seconds=0.2, project=9)


@pytest.fixture(scope="module")
def report() -> Report:
    return speed_probe.run(SMALL)


def test_losses_and_accuracy_are_s3prls(report: Report) -> None:
    assert len(report.ours.losses) == len(report.theirs.losses) == 9
    assert report.loss_difference < 1e-5
    assert report.ours.losses[-1] < report.ours.losses[0]
    assert report.ours.accuracy == report.theirs.accuracy


def test_the_arithmetic(report: Report) -> None:
    assert len(report.ours.passes) == 3
    assert report.theirs.extract == 0.0
    assert report.ratio == pytest.approx(report.theirs.measured() / report.ours.measured())
    side = Side(name="x", extract=5.0, passes=[1.0, 3.0, 2.0], score=0.5)
    assert side.measured() == 11.5
    assert side.projected(10) == 25.5


def test_it_says_what_was_run_and_what_was_not(report: Report) -> None:
    text = "\n".join(speed_probe.lines(report))
    assert "measured at 3 passes" in text
    assert "computed for 9 passes from the figures above, not run" in text
    same = dataclasses.replace(report, project=3)
    assert "not run" not in "\n".join(speed_probe.lines(same))


def test_clips_of_a_corpus(tmp_path: Path) -> None:
    corpus = write_tones(tmp_path / "tones", speakers=2, takes=2).folder
    args = dataclasses.replace(
        SMALL, corpus=corpus, clips=8, test_clips=4, passes=1, json=tmp_path / "race.json"
    )
    clips = clips_of(corpus, train=8, test=4, seconds=0.2, seed=0)
    assert {len(wav) for wav in (*clips.train, *clips.test)} == {3200}
    assert (len(clips.train), len(clips.test_labels), clips.classes) == (8, 4, 3)
    assert speed_probe.main(args) == 0
    kept = json.loads((tmp_path / "race.json").read_text())
    assert kept["setting"]["corpus"] == "tones"
    assert kept["loss_difference"] < 1e-5
    with pytest.raises(ValueError, match="12 utterances with a keyword.*568 are needed"):
        speed_probe.run(dataclasses.replace(args, clips=472, test_clips=96))
    with pytest.raises(ValueError, match="at least 1"):
        speed_probe.run(dataclasses.replace(SMALL, passes=0))
    with pytest.raises(ValueError, match="seconds must be above 0, got -1"):
        speed_probe.run(dataclasses.replace(SMALL, seconds=-1.0))
