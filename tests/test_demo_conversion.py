"""``mynah demo``: what a conversion gives, what is compared with it, and what is kept."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from demo_desk import asked, open_desk
from gallery_corpus import SAME, write_gallery
from voices import RATE

from mynah.recipes.conversion import pitches
from mynah.recipes.conversion.checks import RefusedError
from mynah.recipes.conversion.watermark import detect
from mynah.recipes.demo_page import machines
from mynah.recipes.demo_page.desk import Desk
from mynah.tasks.corpora.corpus import Corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_gallery(tmp_path_factory.mktemp("data") / "three")


@pytest.fixture(scope="module")
def desk(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return open_desk(corpus, tmp_path_factory.mktemp("page") / "takes")


def test_a_conversion_is_as_long_as_its_source_and_says_what_it_is(desk: Desk) -> None:
    sitting = desk.seated(asked(desk))
    take = sitting.take("mkl", "griffin_lim")
    info = soundfile.info(take.made.path)
    assert info.frames == len(sitting.source.wav_S)
    assert take.made.seconds == pytest.approx(2.0)
    with soundfile.SoundFile(take.made.path) as file:
        assert file.title == "synthetic voice"
        assert file.comment == (
            "synthetic voice: bob as ann, by mkl and griffin_lim, with a watermark"
        )
        wav_S = file.read(dtype="float32")
    scores = [detect(wave, RATE).score for wave in (wav_S, sitting.source.wav_S)]
    assert scores[0] > scores[1] + 2, "the mark is there"
    record = json.loads(take.record.read_text())
    assert record["synthetic"] is True
    assert record["converter"]["method"] == "mkl"
    assert (record["source"], record["target"]) == ("bob", "ann")
    assert record["nearness"]["verified"] is False
    assert take.name == "bob_to_ann_mkl_converted"


def test_twice_gives_the_same_bytes(desk: Desk) -> None:
    one = desk.seated(asked(desk)).take("mkl", "griffin_lim")
    desk.seated(asked(desk, voice="cy<b>")).take("knn", "griffin_lim")
    two = desk.seated(asked(desk)).take("mkl", "griffin_lim")
    assert one.made.path != two.made.path
    assert one.made.path.read_bytes() == two.made.path.read_bytes()
    kept = [json.loads(take.record.read_text()) for take in (one, two)]
    assert kept[0] == kept[1]


def test_the_sample_is_the_same_sentence_where_there_is_one(desk: Desk) -> None:
    target = desk.studio.voice("ann", SAME)
    assert target.note == "the target's own recording of these words"
    assert target.sample.seconds == pytest.approx(2.0)
    assert desk.studio.voice("ann", "other words").note == "the target speaks"


def test_pitch_is_moved_by_what_is_asked(desk: Desk) -> None:
    pytest.importorskip("pyworld")
    sitting = desk.seated(asked(desk))
    flat = sitting.take("copy", "world")
    up = sitting.take("copy", "world", semitones=5)
    assert flat.f0[1] == pytest.approx(105, rel=0.02)
    assert up.f0[1] == pytest.approx(105 * 2 ** (5 / 12), rel=0.02)
    assert up.off == pytest.approx(12 * math.log2(up.f0[1] / up.f0[2]))


def test_a_remembered_pitch_changes_nothing(desk: Desk) -> None:
    pytest.importorskip("pyworld")
    sitting = desk.seated(asked(desk))

    def made(method: str) -> tuple[np.ndarray, float]:
        began = time.process_time()
        found = desk.studio.machines.convert(
            sitting.source, sitting.target.references, method=method, vocoder="world"
        )
        return found.wav_S, time.process_time() - began

    pitches.forget()
    wanted, first = made("stats")
    again, second = made("stats")
    np.testing.assert_array_equal(again, wanted)
    assert second < 0.7 * first
    assert made("mkl")[1] < 0.7 * first, "the other method knows the pitch too"


def test_compare_shows_every_method_and_the_vocoder_alone(desk: Desk) -> None:
    pages = list(desk.compare(asked(desk)))
    assert [page.count("<audio") for page in pages] == [3, 4, 5, 6]
    assert "1 of 4 done" in pages[0]
    last = pages[-1]
    assert "done" not in last
    assert last.count("synthetic voice") == last.count('class="take made"') == 4
    assert '<tr class="anchor"><th scope="row">nothing converted</th>' in last


def test_a_method_that_refuses_does_not_stop_the_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = machines.Machines.convert

    def convert(self: object, *args: object, method: str, **more: object) -> object:
        if method == "knn":
            raise RefusedError("too <little>")
        return real(self, *args, method=method, **more)

    monkeypatch.setattr(machines.Machines, "convert", convert)
    *_, last = desk.compare(asked(desk))
    assert "<li>knn: too &lt;little&gt;</li>" in last
    assert last.count("<audio") == 5


def test_what_is_kept_by_several_targets(desk: Desk) -> None:
    *_, last = desk.keep(asked(desk, targets=["ann", "cy<b>"]))
    assert last.count("<tr") == 4  # head, two targets, nothing converted
    assert '<th scope="row">cy&lt;b&gt;</th>' in last
    assert "--asr" in last, "it says how words would be measured"
    with pytest.raises(RefusedError, match="choose 1 to 6 voices of the gallery, 0 are chosen"):
        list(desk.keep(asked(desk, targets=[])))


def test_nothing_from_outside_is_markup(desk: Desk) -> None:
    shown = desk.convert(asked(desk, voice="cy<b>"))
    assert "Target: cy&lt;b&gt;" in shown
    assert "cy<b>" not in shown
    assert "cy<b>" not in desk.preview("cy<b>")
    assert "\n" not in shown


def test_old_files_are_removed(desk: Desk) -> None:
    old, kept = desk.studio.fresh_folder(), desk.studio.lasting
    hour = time.time() - 3700
    os.utime(old, (hour, hour))
    os.utime(kept, (hour, hour))
    desk.studio.fresh_folder()
    assert not old.exists()
    assert kept.exists()
