"""Conversion of recordings: stretches, refusals, the engine, the watermark, and the commands."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from mynah.recipes import cli
from mynah.recipes.conversion import checks, families, trainee, watermark
from mynah.recipes.conversion.checks import Recording, RefusedError
from mynah.recipes.conversion.opening import Choice, open_engine
from mynah.recipes.conversion.stretches import cut, joined
from mynah.tasks.corpora.corpus import Corpus, write_corpus


def speech(seconds: float, *, pitch: float = 120.0, rate: int = 16000, seed: int = 0) -> Recording:
    """Return a buzz with moving formants and pauses."""
    t = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * pitch * t + 2 * np.sin(2 * np.pi * 3 * t)
    wave = sum(
        np.sin(k * phase) / k * (1 + np.sin(2 * np.pi * t * (k % 5 + 1) / 3)) for k in range(1, 20)
    )
    wave = wave * (np.sin(2 * np.pi * t * 1.3) > -0.7)
    noise = np.random.default_rng(seed).standard_normal(len(t)) * 0.01
    return Recording(wav_S=(0.05 * wave + 0.05 * noise).astype(np.float32), sample_rate=rate)


# -- recordings -----------------------------------------------------------------------------------


def test_stretches_cover_and_join_to_the_same() -> None:
    wave = speech(21.0).wav_S
    found = cut(wave, 16000, longest=9.0, hop=160)
    assert len(found) > 2
    assert found[0][0] == 0
    assert found[-1][1] == len(wave)
    assert all(b - a <= 9 * 16000 for a, b in found)
    again = joined([wave[a:b] for a, b in found], found, len(wave))
    np.testing.assert_allclose(again, wave, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (speech(0.3), "needs 0.5 s or more"),
        (Recording(wav_S=np.zeros(16000, np.float32), sample_rate=16000), "silent"),
        (Recording(wav_S=np.full(16000, np.nan, np.float32), sample_rate=16000), "NaN"),
        (Recording(wav_S=speech(1.0).wav_S, sample_rate=4000), "8000 to 192000"),
        (speech(12.0), "more than 10"),
    ],
)
def test_a_source_that_cannot_be_converted_is_refused(source: Recording, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        checks.check_source(source, longest=10.0)


def test_a_target_must_be_heard_for_a_second() -> None:
    with pytest.raises(RefusedError, match="at least one"):
        checks.check_references([])
    with pytest.raises(RefusedError, match="of speech"):
        checks.check_references([speech(0.6)])
    _, warnings = checks.check_references([speech(2.0)])
    assert "5 s or more" in warnings[0]


@pytest.mark.parametrize("method", ["copy", "stats", "mkl", "knn"])
def test_the_engine_keeps_length_and_level_and_repeats_itself(method: str) -> None:
    engine = open_engine(Choice(method=method, vocoder="griffin_lim"))
    source, target = speech(1.5, rate=22050), speech(6.0, pitch=210.0)
    first, again = engine.convert(source, [target]), engine.convert(source, [target])
    assert np.array_equal(first.wav_S, again.wav_S)
    assert len(first.wav_S) == 24000
    level = checks.active_level(first.wav_S, 16000) / checks.active_level(source.wav_S, 22050)
    assert 0.8 < level < 1.25
    assert float(np.abs(first.wav_S).max()) <= 1.0


def test_the_mark_is_found_where_it_is_and_nowhere_else() -> None:
    wave = speech(6.0).wav_S
    marked = watermark.mark(wave, 16000)
    added = 10 * np.log10(np.mean((marked - wave) ** 2) / np.mean(wave**2))
    assert -40 < added < -25
    assert watermark.detect(marked, 16000).marked
    assert watermark.detect(marked[5000:60000] * 0.3, 16000).marked
    assert not watermark.detect(wave, 16000).marked
    assert not watermark.detect(marked, 16000, key="another").marked


# -- commands -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepare a corpus of three speakers."""
    folder = tmp_path_factory.mktemp("speech")
    for speaker, pitch in (("x", 110.0), ("y", 160.0), ("z", 220.0)):
        (folder / speaker).mkdir()
        for number in range(3):
            one = speech(2.0, pitch=pitch, seed=number)
            soundfile.write(folder / speaker / f"{speaker}{number}.wav", one.wav_S, 16000)
    out = folder.parent / "corpus"
    command = ["prepare", "folder", str(folder), str(out), "--from-path", "speaker=parent"]
    assert cli.main(command) == 0
    return out


def files(folder: Path) -> tuple[Path, Path]:
    """Write a source and a target."""
    for name, one in (("a", speech(1.5)), ("b", speech(6.0, pitch=210.0))):
        soundfile.write(folder / f"{name}.wav", one.wav_S, 16000)
    return folder / "a.wav", folder / "b.wav"


def listed(folder: Path, *rows: str) -> list[str]:
    """Write a source, a target and a list of conversions; returns the command that does these."""
    files(folder)
    (folder / "list.tsv").write_text("\n".join(["source\ttarget\tout", *rows]) + "\n")
    return ["convert", "--vocoder", "griffin_lim", "--list", str(folder / "list.tsv")]


def test_convert_writes_a_file_that_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = files(tmp_path)
    out = tmp_path / "c.wav"
    command = ["convert", "--method", "mkl", "--vocoder", "griffin_lim", "--source", str(a)]
    command += ["--target", str(b), "--out", str(out)]
    assert cli.main(command) == 0
    assert "synthetic voice" in soundfile.SoundFile(out).comment
    page = json.loads((tmp_path / "c.wav.json").read_text())
    assert page["converter"]["method"] == "mkl"
    assert page["watermark"] is True
    before = out.read_bytes()
    assert cli.main(command) == 0
    assert "there already" in capsys.readouterr().out
    out.write_bytes(before + b"x")
    assert cli.main(command) == 2
    assert "--force" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*"))


def test_what_is_there_is_replaced_knowingly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = files(tmp_path)
    command = ["convert", "--vocoder", "griffin_lim", "--source", str(a), "--target", str(b)]
    out = ["--out", str(tmp_path / "c.wav")]
    assert cli.main([*command, "--method", "copy", *out]) == 0
    assert "in place" not in capsys.readouterr().out
    assert cli.main([*command, "--method", "stats", *out]) == 0
    assert "in place of a conversion of other settings" in capsys.readouterr().out
    assert cli.main([*command, "--out", str(tmp_path / "c.mp3")]) == 2
    assert "ends in .wav" in capsys.readouterr().err


def test_codes_are_written_over_codes_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = files(tmp_path)
    command = ["convert", "--vocoder", "griffin_lim", "--method", "stats", "--source", str(a)]
    command += ["--target", str(b), "--codes"]
    to = tmp_path / "x.npz"
    for _ in range(2):
        assert cli.main([*command, str(to)]) == 0
    with np.load(to) as found:
        assert found["content"].shape[1] == 80
        assert found["speaker"].shape == (160,)
    to.write_bytes(a.read_bytes())
    for name, message in (("x.npz", "holds no codes of ours"), ("b.wav", "ends in .npz")):
        before = (tmp_path / name).read_bytes()
        assert cli.main([*command, str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err
        assert (tmp_path / name).read_bytes() == before


def test_every_file_is_looked_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, _ = files(tmp_path)
    (tmp_path / "no.wav").write_bytes(b"no audio")
    assert cli.main(["convert", "--detect", str(tmp_path / "no.wav"), str(a)]) == 3
    shown = capsys.readouterr()
    assert "no.wav: not looked into" in shown.err
    assert "a.wav\tno mark found (under 3 s one may be missed)\t" in shown.out


def test_outputs_of_a_list_are_files_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = listed(tmp_path, "a.wav\tb.wav\ty.wav", "a.wav\tb.wav\tz/../y.wav")
    assert cli.main(command) == 3
    assert "written twice" in capsys.readouterr().err
    assert cli.main([*command, "--codes", str(tmp_path / "x.npz")]) == 2
    assert "leave out the other options" in capsys.readouterr().err


def test_a_list_goes_on_after_a_bad_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = listed(tmp_path, "nothing.wav\tb.wav\tx.wav", "a.wav\tb.wav\ty.wav")
    assert cli.main(command) == 3
    assert "x.wav: not converted" in capsys.readouterr().err
    assert (tmp_path / "y.wav").is_file()
    assert not (tmp_path / "x.wav").exists()


def test_a_list_goes_on_after_a_crash_between_the_two_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = listed(tmp_path, "a.wav\tb.wav\tx.wav")
    out, page = tmp_path / "x.wav", tmp_path / "x.wav.json"
    assert cli.main([*command, "--method", "copy"]) == 0
    first, about = out.read_bytes(), json.loads(page.read_text())

    def crash(self: Path, target: Path) -> Path:
        if Path(target) == out:
            raise SystemExit("power is gone")
        return replace(self, target)

    replace = Path.replace
    for method in ("stats", "mkl"):  # twice in a row, even
        with monkeypatch.context() as patch, pytest.raises(SystemExit, match="power"):
            patch.setattr(Path, "replace", crash)
            cli.main([*command, "--method", method])
        assert out.read_bytes() == first
        assert json.loads(page.read_text())["replaces"] == about["sha256"]
    assert cli.main([*command, "--method", "mkl"]) == 0
    assert "in place of a conversion of other settings" in capsys.readouterr().out
    assert out.read_bytes() != first
    assert cli.main([*command, "--method", "mkl"]) == 0
    assert "there already" in capsys.readouterr().out
    out.write_bytes(b"somebody's own")
    assert cli.main([*command, "--method", "mkl"]) == 3


def test_arguments_that_do_not_go_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["convert"]) == 2
    assert "--source, --target and --out" in capsys.readouterr().err
    assert (
        cli.main(["convert", "--method", "adain", "--source", "a", "--target", "b", "--out", "c"])
        == 2
    )
    assert "mynah pretrain vc/adain" in capsys.readouterr().err


def test_a_trained_converter_resumes_to_the_same_bits_and_converts(
    tmp_path: Path, tiny_corpus: Path
) -> None:
    families.register()
    base = [
        "pretrain",
        "vc/adversarial-tiny",
        "--corpus",
        str(tiny_corpus),
        "train.batch_seconds=4",
    ]
    small = ["model.hidden=8", "model.code=4", "model.voice=4", "train.log_every=1"]
    small += ["train.steps=7", "train.schedule.warmup=0", "train.save_every=4"]
    whole, cut_off = tmp_path / "whole", tmp_path / "cut"
    assert cli.main([*base, *small, "--out", str(whole)]) == 0
    assert cli.main([*base, *small, "--out", str(cut_off), "--minutes", "0.0001"]) == 75
    assert cli.main([*base, *small, "--out", str(cut_off), "--resume"]) == 0
    weights = [(run / "final" / "model.safetensors").read_bytes() for run in (whole, cut_off)]
    assert weights[0] == weights[1]
    engine = open_engine(Choice(model=whole, vocoder="griffin_lim"))
    found = engine.convert(speech(1.0), [speech(5.0, pitch=200.0)])
    assert found.code_TC.shape[1] == 4
    assert found.record["converter"]["method"] == "adversarial"


def test_a_converter_to_one_voice_is_told_whose(
    tmp_path: Path, tiny_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pretrain", "vc/taco2_ar-tiny", "--teacher", "fbank", "--corpus", str(tiny_corpus)]
    assert cli.main([*command, "--out", str(tmp_path / "run"), "--steps", "1"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "speak in one voice, and the corpus has 3 (x, y, z ...): say whose" in shown


@pytest.mark.parametrize("gone", ["../gone/run", "apx/tiny"])
def test_an_upstream_that_moved_is_asked_for(gone: str) -> None:
    config = dataclasses.replace(trainee.CONFIGS["autoencoder-tiny"], upstream=gone, dim=16)
    model = trainee.MODEL(config)
    with pytest.raises((FileNotFoundError, LookupError), match=f"{gone}.*--upstream"):
        _ = model.hearing


def test_a_converter_is_an_upstream_whose_state_is_the_code(
    tmp_path: Path, tiny_corpus: Path
) -> None:
    from mynah.recipes.conversion.trainee import load_converter
    from mynah.upstream.core.spec import load

    command = ["pretrain", "vc/autoencoder-tiny", "--corpus", str(tiny_corpus), "--out"]
    small = ["train.steps=2", "train.schedule.warmup=0", "model.hidden=8", "model.code=4"]
    assert cli.main([*command, str(tmp_path / "run"), *small, "train.batch_seconds=4"]) == 0
    upstream = load(str(tmp_path / "run"))
    wav: Tensor = torch.from_numpy(speech(1.0).wav_S)
    features = upstream(wav[None], torch.tensor([16000]))
    assert features.layers_LBTD.shape == (1, 1, upstream.num_frames(16000), 4)
    model = load_converter(tmp_path / "run")
    code = model.converter.encode_content(model.hearing([wav])[0])
    torch.testing.assert_close(features.layers_LBTD[0, 0], code)


def test_judge_codes_prints_a_row_per_converter(
    tmp_path: Path, tiny_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "codes.json"
    command = ["judge", "codes", "stats", "copy", "--corpus", str(tiny_corpus), "--out", str(out)]
    assert cli.main([*command, "--sentence", "nothing"]) == 3
    assert "--sentence" in capsys.readouterr().err
    told = [
        dataclasses.replace(u, labels={**u.labels, "take": u.id[-1]} if u.id[-1] != "2" else {})
        for u in Corpus.open(tiny_corpus).utterances()
    ]
    write_corpus(tmp_path / "takes", told, name="takes")
    command[command.index(str(tiny_corpus))] = str(tmp_path / "takes")
    few = ["--sentence", "take", "--steps", "3", "--folds", "2"]
    assert cli.main([*command, *few]) == 0
    shown = capsys.readouterr()
    assert "left out: 3 of 9 utterances without a speaker or the label 'take'" in shown.err
    assert [line.split(" | ")[0] for line in shown.out.splitlines()[2:5]] == [
        "| stats",
        "| copy",
        "| chance",
    ]
    assert len(json.loads(out.read_text())["rows"]) == 2


def test_vocode_keeps_labels_and_length(tmp_path: Path, tiny_corpus: Path) -> None:
    out = tmp_path / "vocoded"
    assert cli.main(["vocode", str(tiny_corpus), str(out)]) == 0
    found = Corpus.open(out).utterances()
    assert len(found) == 18
    assert {u.label("vocoder") for u in found} == {"none", "griffin_lim"}
    copy = next(u for u in found if u.label("vocoder") == "griffin_lim")
    own = next(u for u in found if copy.id.startswith(u.id) and u is not copy)
    assert copy.speaker == own.speaker
    assert copy.duration == pytest.approx(own.duration, abs=0.001)
    assert cli.main(["vocode", str(tiny_corpus), str(out)]) == 2
    named = [str(tiny_corpus), str(tmp_path / "named"), "--vocoder", "world", "--only-copies"]
    assert cli.main(["vocode", *named]) == 0  # that one, and not the default one too
    assert {u.label("vocoder") for u in Corpus.open(tmp_path / "named").utterances()} == {"world"}
