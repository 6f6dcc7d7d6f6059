"""Submissions held against test sets, sizes and audio."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

sys.path.append(str(Path(__file__).parent / "doubles"))
from resulting import ACCURACY, write
from submitting import rename, submitted, verdict
from voices import write_voices

from mynah.recipes import cli
from mynah.recipes.submission import pack, safezip
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.corpora.mixture_plan import Options
from mynah.tasks.corpora.mixtures import build
from mynah.tasks.metrics.mean import as_fields
from mynah.tasks.metrics.separation import si_sdr
from mynah.tasks.metrics.speech_quality import pesq, stoi


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of results and the submission made of it."""
    return submitted(tmp_path_factory.mktemp("submission"))


def test_ones_own_submission_is_valid(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = verdict(*made, capsys)
    assert code == 0, said
    tasks = "asr, asr+lm, asv, er, ic, ks, pr, qbe, sd, se, sf, sid, ss, st"
    assert f"is valid: {tasks}" in said
    assert "se: means of the utterances of se-superb-mini-seed0.json; audio was not heard" in said
    assert (
        "note: not the leaderboard's test sets: asr (12 rows of mini, the leaderboard has 2620), "
        in said
    )
    code, said = verdict(*made, capsys, "--official")
    assert code == 1
    assert "task pr: test set that is not the leaderboard's (1): 12 rows of mini" in said
    assert "task st" not in said  # its size was not published


def test_the_leaderboards_own_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = [(f"s{i % 8}", "yes", "yes" if i % 3 else "no") for i in range(3081)]
    write(tmp_path, "ks", table, ["accuracy"], ACCURACY, classes=("no", "yes"),
          protocol="superb", skipped={"u7": "x"})  # fmt: skip
    out = tmp_path / "x.zip"
    assert cli.main(["submit", str(tmp_path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "not the leaderboard's" not in said
    assert "ks: 1 utterances of the corpus could not be used (u7)" in said
    assert verdict(tmp_path, out, capsys, "--official")[0] == 0


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    """Mixtures of two speakers, and of a speaker and noise."""
    folder = tmp_path_factory.mktemp("mixed")
    voices = write_voices(folder / "voices", takes=2)
    return {
        "se": build(folder / "se", voices, Options(kind="enhancement", snr=(0.0, 5.0))),
        "ss": build(folder / "ss", voices, Options(kind="separation")),
    }


@pytest.mark.parametrize("task", ["se", "ss"])
def test_means_are_computed_again_from_audio(
    task: str, mixed: dict[str, Corpus], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if task == "se" and importlib.util.find_spec("pesq") is None:
        pytest.skip("needs pesq")
    corpus, names = mixed[task], {"se": ("clean",), "ss": ("s1", "s2")}[task]
    audio, table = tmp_path / "audio", []
    audio.mkdir()
    fields: tuple[str, ...] = ("pesq", "stoi", "si_sdri") if task == "se" else ("si_sdri",)
    for u in corpus.utterances("test"):
        mixture = soundfile.read(u.path, dtype="float32")[0]
        sources = [
            soundfile.read(Path(u.path).parent / u.labels[n], dtype="float32")[0] for n in names
        ]
        estimates = [0.7 * s + 0.3 * mixture for s in sources]
        for name, estimate in zip(names, estimates[::-1], strict=True):  # the order does not matter
            end = "wav" if task == "se" else f"{name}.wav"
            soundfile.write(audio / f"{u.id}.{end}", estimate, 16000, subtype="FLOAT")
        gain = [si_sdr(e, s) - si_sdr(mixture, s) for e, s in zip(estimates, sources, strict=True)]
        values = {"si_sdri": float(np.mean(gain))}
        if task == "se":
            values["pesq"] = pesq(estimates[0], sources[0], sample_rate=16000)
            values["stoi"] = stoi(estimates[0], sources[0], sample_rate=16000)
        table.append((u.id, "x", as_fields({name: values[name] for name in fields})))
    folder, out = tmp_path / "results", tmp_path / "x.zip"
    ids = [u.id for u in corpus.utterances("test")]
    signs = {f: f"{f}|v1" for f in fields}
    path = write(folder, task, table, list(fields), signs, scale=1.0, protocol="superb")
    rename(path, ids)
    assert cli.main(["submit", str(folder), "--out", str(out)]) == 0
    capsys.readouterr()
    heard = ("--audio", f"{task}={audio}", "--prepared", f"{task}={corpus.folder}")
    code, said = verdict(folder, out, capsys, *heard)
    assert code == 0, said
    assert f"{task}: means computed again from" in said

    honest = safezip.read(out)
    lied = {n: re.sub(rb"si_sdr .*", b"si_sdr 9.25", d) for n, d in honest.items()}
    out.write_bytes(pack.as_zip(lied))
    code, said = verdict(folder, out, capsys)
    assert code == 0
    assert f"{task}: means as claimed" in said
    code, said = verdict(folder, out, capsys, *heard)
    assert code == 1
    assert f"task {task}: mean that its audio does not give (1): si_sdr 9.2500, the audio" in said

    out.write_bytes(pack.as_zip(honest))
    files = sorted(audio.iterdir())
    soundfile.write(files[0], np.zeros(100), 16000)
    files[-1].unlink()
    code, said = verdict(folder, out, capsys, *heard)
    assert code == 1
    assert f"audio missing (1): {files[-1].name}" in said
    assert "audio that cannot be scored (1)" in said
    assert f"{files[0].name}: 100 samples, not" in said


def test_options_that_do_not_go_together(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = verdict(*made, capsys, "--audio", "se=x")
    assert code == 2
    assert "--audio se= needs its corpus: --prepared se=FOLDER" in said
    code, said = verdict(*made, capsys, "--audio", "ks=x")
    assert code == 2
    assert "--audio is one of se=FOLDER and ss=FOLDER, got 'ks=x'" in said
    code, said = verdict(*made, capsys, "--audio", "se=/nowhere", "--prepared", "se=/nowhere")
    assert code == 2
    assert "no such folder: /nowhere" in said
