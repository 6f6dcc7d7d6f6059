"""``mynah demo`` without a server and without a browser: its gallery, what it is given, its machines, its command."""

from __future__ import annotations

import dataclasses
import errno
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from demo_desk import asked, open_desk
from gallery_corpus import SAME, write_gallery
from voices import RATE, voice

from mynah.downstream.conversion import adain
from mynah.recipes import demo, errors
from mynah.recipes.cli import main as cli
from mynah.recipes.conversion import families
from mynah.recipes.conversion.checks import Recording, RefusedError
from mynah.recipes.demo_page import gallery, machines, recordings, render
from mynah.recipes.demo_page.desk import Desk, answered
from mynah.recipes.demo_page.studio import CONSENT
from mynah.tasks.corpora.corpus import Corpus, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_gallery(tmp_path_factory.mktemp("data") / "three")


@pytest.fixture(scope="module")
def desk(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return open_desk(corpus, tmp_path_factory.mktemp("page") / "takes")


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


def test_a_file_that_the_system_refuses_is_not_named() -> None:
    def closed(*_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", "/srv/secret.wav")

    shown = answered(closed)({})
    assert "Permission denied" in shown
    assert "secret" not in shown


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
