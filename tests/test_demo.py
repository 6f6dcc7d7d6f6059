"""``mynah demo``: what the page does, without a server and without a browser."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
import shutil
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from gallery_corpus import SAME, write_gallery
from voices import RATE, voice

from mynah.downstream.conversion import adain
from mynah.recipes import demo, errors
from mynah.recipes.cli import main as cli
from mynah.recipes.conversion import families, pitches
from mynah.recipes.conversion.checks import Recording, RefusedError
from mynah.recipes.conversion.watermark import detect
from mynah.recipes.demo_page import gallery, machines, measures, pictures, recordings, render
from mynah.recipes.demo_page.desk import Desk, answered
from mynah.recipes.demo_page.studio import CONSENT, Studio
from mynah.tasks.corpora.corpus import Corpus, write_corpus

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_gallery(tmp_path_factory.mktemp("data") / "three")


@pytest.fixture(scope="module")
def desk(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    studio = Studio(
        folder=tmp_path_factory.mktemp("page") / "takes",
        gallery=gallery.open_gallery(corpus.folder),
        machines=machines.Machines(),
    )
    return Desk(studio)


def asked(desk: Desk, **more: object) -> dict[str, object]:
    """Return what the page asks when the first example and a voice of the gallery are chosen."""
    key = next(iter(desk.studio.gallery.examples))
    plain = {
        "source": desk.example(key)[0], "said": "", "kind": "gallery", "voice": "ann",
        "own": None, "consent": False, "method": "mkl", "vocoder": "griffin_lim", "semitones": 0,
    }  # fmt: skip
    return {**plain, **more}


def wav(path: Path, seconds: float, *, rate: int = RATE, channels: int = 1) -> Path:
    wave = voice(120.0, seconds, 7)
    soundfile.write(path, np.stack([wave * (1 + c) / 2 for c in range(channels)], axis=1), rate)
    return path


# -- the gallery ------------------------------------------------------------------------------------


def test_voices_and_examples(corpus: Corpus) -> None:
    found = gallery.open_gallery(corpus.folder)
    assert list(found.voices) == ["ann", "bob", "cy<b>"]
    assert found.voices["bob"].note == "male"
    assert {u.text for u in found.examples.values()} == {SAME}, "what all say comes first"
    assert next(iter(found.examples.values())).speaker == "bob", "the test split comes first"
    for v in found.voices.values():
        assert v.same[SAME].speaker == v.key
        assert SAME not in {u.text for u in v.pool}, "no example in a pool"
        assert [u.duration for u in v.pool] == sorted((u.duration for u in v.pool), reverse=True)
        assert v.seconds == pytest.approx(2.0 + 2.1 + 2.2 + 2.3)


def test_a_pool_ends_at_a_minute(corpus: Corpus) -> None:
    u = corpus.utterances()[0]
    many = [dataclasses.replace(u, id=f"{i:03}", duration=7.0) for i in range(20)]
    assert len(gallery.pooled(many)) == 8


def test_too_few_voices_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    alone = [u for u in corpus.utterances() if u.speaker == "ann"]
    made = write_corpus(tmp_path / "alone", alone, name="alone")
    with pytest.raises(errors.BadDataError, match="two speakers with 8 s each.*there are 1 and"):
        gallery.open_gallery(made.folder)


def test_without_a_corpus_it_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli(["demo", "--check"]) == 2
    assert "make it with 'make mini'" in capsys.readouterr().err


# -- what is given ----------------------------------------------------------------------------------


def test_channels_become_their_mean(tmp_path: Path) -> None:
    path = wav(tmp_path / "two.wav", 1.0, channels=2)
    both, _ = soundfile.read(path, dtype="float32")
    got = recordings.of_file(path, name="your source", limits=(0.5, 30.0))
    np.testing.assert_allclose(got.wav_S, both.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, r"your source lasts 0\.2 s, at least 0\.5 s"), (31.0, r"lasts 31\.0 s, at most 30 s")],
)
def test_lengths_are_refused_with_the_reason(tmp_path: Path, seconds: float, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        recordings.of_file(wav(tmp_path / "x.wav", seconds), name="your source", limits=(0.5, 30.0))


@pytest.mark.parametrize("body", [b"", b"<html>no audio</html>", b"RIFF\x10\0\0\0WAVEfmt "])
def test_what_is_no_audio_is_refused_without_its_path(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "a<script>.wav"
    path.write_bytes(body)
    with pytest.raises(RefusedError) as caught:
        recordings.of_file(path, name="your source", limits=(0.5, 30.0))
    assert str(caught.value).startswith("your source: ")
    assert str(tmp_path) not in str(caught.value)
    assert "script" not in str(caught.value)


def test_an_uploaded_target_needs_consent(desk: Desk, tmp_path: Path) -> None:
    own = str(wav(tmp_path / "own.wav", 4.0))
    shown = answered(desk.convert)(asked(desk, kind="own", own=own))
    assert CONSENT in shown
    assert "refused" in shown
    shown = answered(desk.convert)(asked(desk, kind="own", own=own, consent=True))
    assert "Target: your target" in shown


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"source": None}, "no source yet"),
        ({"voice": None}, "no target yet"),
        ({"voice": "../etc"}, "no target yet"),
        ({"kind": "own"}, "no target yet"),
        ({"semitones": 2}, "griffin_lim cannot move the pitch"),
        ({"method": "gone"}, "no method &#39;gone&#39;: choose one of mkl, knn, stats"),
        ({"vocoder": "gone"}, "no vocoder &#39;gone&#39;"),
    ],
)
def test_what_cannot_be_is_said_in_the_results_place(
    desk: Desk, more: dict[str, object], said: str
) -> None:
    shown = answered(desk.convert)(asked(desk, **more))
    assert said in shown
    assert 'class="refused"' in shown


def test_defects_of_ours_are_not_shown(desk: Desk) -> None:
    def broken(_: object) -> str:
        raise AttributeError("secret")

    with pytest.raises(AttributeError):
        answered(broken)({})


def test_a_full_disk_is_said(desk: Desk) -> None:
    def full(_: object) -> str:
        raise OSError(28, "No space left on device", "/somewhere/secret")

    assert "disk is full" in answered(full)({})
    assert "secret" not in answered(full)({})


# -- conversion -------------------------------------------------------------------------------------


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


# -- measures ---------------------------------------------------------------------------------------


def test_the_spectral_distance_is_wasserstein_of_diagonal_gaussians() -> None:
    rng = np.random.default_rng(0)
    one = 0.3 * rng.standard_normal((400, 5))
    other = 0.5 * rng.standard_normal((300, 5)) + rng.standard_normal(5)
    found = measures.spectral_distance(one, other)
    scale = 20 / np.log(10)
    parts = [(x.mean(0) - x.mean(), x.std(0)) for x in (one * scale, other * scale)]
    gaps = np.concatenate([a - b for a, b in zip(*parts, strict=True)])
    assert found == pytest.approx(np.sqrt((gaps**2).sum() / 5))
    assert measures.spectral_distance(one, one + 2.0) == pytest.approx(0), "level plays no part"
    assert measures.spectral_distance(one, one * 2) > measures.spectral_distance(one, one * 1.5)


def test_silence_is_not_part_of_a_voice() -> None:
    rng = np.random.default_rng(0)
    speech = rng.standard_normal((200, 4))
    silent = np.concatenate([speech, np.full((500, 4), -11.0)])
    assert measures.spectral_distance(speech, silent) == pytest.approx(0)


def test_semitones_and_medians() -> None:
    assert measures.semitones(220.0, 110.0) == pytest.approx(12)
    assert measures.semitones(None, 110.0) is None
    assert measures.median_f0(np.array([0, 100, 0, 120, 300])) == 120
    assert measures.median_f0(np.zeros(3)) is None


def test_there_is_no_minus_zero() -> None:
    from mynah.recipes.demo_page.render import signed

    assert [signed(x) for x in (-0.04, 0.0, 0.04, -0.06, 2.0)] == ["+0.0"] * 3 + ["-0.1", "+2.0"]


def test_nearness_knows_its_direction() -> None:
    near = measures.Nearness(target=0.3, source=0.7, verified=True)
    assert near.leaks
    assert not dataclasses.replace(near, verified=False).leaks


# -- pictures ---------------------------------------------------------------------------------------


def test_a_palette_png_holds_its_levels() -> None:
    level = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    data = pictures.palette_png(level, (1, 2, 3))
    size = struct.unpack(">II", data[16:24])
    body = data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8]
    rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(3, 5)
    assert size == (4, 3)
    np.testing.assert_array_equal(rows[:, 1:], level)
    assert not rows[:, 0].any()
    seen = matplotlib.image.imread(io.BytesIO(data))
    np.testing.assert_allclose(seen[..., 3] * 255, level, atol=1e-4)
    np.testing.assert_allclose(
        seen[..., :3] * 255, np.broadcast_to([1, 2, 3], (3, 4, 3)), atol=1e-4
    )


def test_pictures_share_one_time_axis() -> None:
    mel = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    half = pictures.Drawn(mel_TM=mel, f0_T=np.full(50, 100, np.float32), seconds=1.0)
    tree = ElementTree.fromstring(pictures.picture(half, axis=2.0, alt='a "<b>'))
    inner = pictures.WIDTH - pictures.LEFT
    assert float(tree.find(f"{SVG}image").get("width")) == pytest.approx(inner / 2)
    assert tree.get("aria-label") == 'a "<b>'
    path = tree.find(f"{SVG}path").get("d")
    first, last = path.removeprefix("M").split("L")[0], path.split("L")[-1]
    assert float(first.split()[0]) == pytest.approx(pictures.LEFT + inner / 200, abs=0.1)
    assert float(last.split()[0]) == pytest.approx(pictures.LEFT + inner / 2 - inner / 200, abs=0.1)
    y = (
        pictures.TALL
        + pictures.GAP
        + pictures.STRIP * (1 - math.log(100 / 60) / math.log(500 / 60))
    )
    assert float(first.split()[1]) == pytest.approx(y, abs=0.1)


def test_unvoiced_stretches_break_the_curve() -> None:
    f0 = np.array([0, 100, 100, 0, 200, 0], np.float32)
    path = pictures.f0_path(f0, x=0, width=6, y=0)
    assert path.count("M") == 2
    assert path.count("L") == 1
    assert pictures.f0_path(np.zeros(5), x=0, width=6, y=0) == ""


@pytest.mark.parametrize(
    ("seconds", "marks"), [(2.6, [0, 0.5, 1, 1.5, 2, 2.5]), (0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5])]
)
def test_ticks_are_round(seconds: float, marks: list[float]) -> None:
    assert pictures.ticks(seconds) == pytest.approx(marks)


# -- machines ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run folder of an untrained adain."""
    from mynah import upstream
    from mynah.upstream.core import modelfolder

    families.register()
    module = upstream.get("vc")
    config = dataclasses.replace(
        next(c for c in module.CONFIGS.values() if c.method == "adain"), speakers=("a", "b")
    )
    folder = tmp_path_factory.mktemp("runs") / "my-adain"
    modelfolder.save(module.MODEL(config), folder / "final")
    yield folder


def test_trained_runs_are_found_and_convert(run: Path, desk: Desk) -> None:
    (run.parent / "notes").mkdir(exist_ok=True)
    assert machines.found_in(run.parent) == [run]
    assert adain.CONVERTER.trained
    made = machines.Machines([run, run])
    assert list(made.methods) == ["mkl", "knn", "stats", "my-adain", "my-adain (2)"]
    assert made.methods["my-adain"].note == "Trained: adain, 2 speakers."
    sitting = desk.seated(asked(desk))
    result = made.convert(
        sitting.source, sitting.target.references, method="my-adain", vocoder="griffin_lim"
    )
    assert len(result.wav_S) == len(sitting.source.wav_S)


def test_a_damaged_run_is_passed_over_and_said(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(run, tmp_path / "broken")
    (tmp_path / "broken" / "final" / "model.safetensors").write_bytes(b"no")
    assert machines.found_in(tmp_path) == []
    assert "passed over" in caplog.text
    with pytest.raises(ValueError, match="holds no whole model"):
        machines.Machines([tmp_path / "broken"])
    with pytest.raises(FileNotFoundError, match="no such folder of models"):
        machines.found_in(tmp_path / "gone")


def test_an_upstream_is_no_converter(tmp_path: Path) -> None:
    from mynah import upstream
    from mynah.upstream.core import modelfolder

    family = upstream.get("apc")
    modelfolder.save(family.MODEL(family.CONFIGS["tiny"]), tmp_path / "apc")
    assert machines.found_in(tmp_path) == []
    with pytest.raises(ValueError, match="a model of apc, not a voice converter"):
        machines.Machines([tmp_path / "apc"])


# -- the command ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({}, ("127.0.0.1", "localhost")),
        ({"host": "10.0.0.7", "allow_remote": True}, ("127.0.0.1", "localhost", "10.0.0.7")),
        (
            {"host": "0.0.0.0", "allow_remote": True, "name": ("lab.example",)},
            ("127.0.0.1", "localhost", "lab.example"),
        ),
    ],
)
def test_names_of_the_server(given: dict[str, object], names: tuple[str, ...]) -> None:
    assert demo.names_of(demo.Args(**given)) == names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"host": "0.0.0.0"}, "the page has no password: say --allow-remote"),
        ({"host": "0.0.0.0", "allow_remote": True}, "--name HOST"),
        ({"name": ("lab",)}, "it needs --allow-remote"),
        ({"port": 0}, "--port must be between 1 and 65535"),
    ],
)
def test_what_would_open_the_page_to_others_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        demo.names_of(demo.Args(**given))


def test_a_message_names_the_tone() -> None:
    assert 'class="quiet"' in render.message("hello")
    assert "a &lt; b" in render.message("a < b", "refused")


def test_a_recording_knows_its_first_seconds() -> None:
    one = Recording(wav_S=np.zeros(RATE, np.float32), sample_rate=RATE, name="x")
    assert recordings.first(one, 0.25).seconds == 0.25
