"""Submissions: packed, and scored offline."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "doubles"))
from resulting import ACCURACY, words, write
from submitting import Files, P, submitted

from mynah.recipes import cli, results, submit
from mynah.recipes.submission import activity, layout, pack, safezip
from mynah.tasks.metrics.diarization import decode, encode
from mynah.tasks.metrics.rttm import Turn
from mynah.upstream.core.spec import load

KS = "ks_public/predict.txt"
h5py = activity.hdf5()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of results and the submission made of it."""
    return submitted(tmp_path_factory.mktemp("submission"))


# -- packing -----------------------------------------------------------------------------------


def test_names_and_lines_are_the_official_ones(made: tuple[Path, Path]) -> None:
    files = safezip.read(made[1])
    single = {P + part.path for part in layout.PARTS if part.task not in ("er", "sd")}
    folds = {f"{P}er_fold{k}_public/predict.txt" for k in range(1, 6)}
    turns = {f"{P}sd_public/scoring/predictions/u{i}.h5" for i in range(6)}
    assert set(files) == single | folds | turns | {f"{P}sd_public/frame_shift"}
    assert files[f"{P}ks_public/predict.txt"].startswith(b"u0.wav yes\nu1.wav yes\nu2.wav no\n")
    assert files[f"{P}ic_public/predict.csv"].startswith(b"u0,yes,lamp,room\n")
    assert files[f"{P}asr_public/predict.ark"].startswith(b"u0 \nu1 HE SAW\n")
    assert files[f"{P}st_public/predict.tsv"].startswith(b"utt_id\thyp\tref\nu0\tein Haus")
    assert (
        files[f"{P}ss_public/metrics.txt"] == b"si_sdr 0.85\n"
    )  # the improvement, as s3prl names it
    assert files[f"{P}er_fold2_public/predict.txt"].startswith(b"u1 yes\nu6 yes\n")
    assert (
        b'<term file="d2" channel="1" tbeg="0.000" dur="0.00" score="0.5" decision="NO"/>'
        in (files[f"{P}qbe_public/benchmark.stdlist.xml"])
    )


def test_the_same_bytes_twice_and_a_form_beside(made: tuple[Path, Path], tmp_path: Path) -> None:
    again = tmp_path / "again.zip"
    assert cli.main(["submit", str(made[0]), "--out", str(again)]) == 0
    assert again.read_bytes() == made[1].read_bytes()
    form = json.loads(again.with_suffix(".form.json").read_text())
    assert form["paramShared"] == 10
    assert form["task"] == 1
    assert form["macs"] == form["stride"] == "to fill in"  # these results say neither
    assert form["taskSpecParam"]["ks"] == 3


def test_the_form_gives_the_stride_where_results_know_it(tmp_path: Path) -> None:
    """As the leaderboard's form takes it: digits, 100 at most."""
    folder = tmp_path / "r"
    write(folder, "ks", words(1), ["accuracy"], ACCURACY, upstream_stride_ms=20.0)
    (result,) = results.load_all(folder)
    assert submit.known_stride([result]) == 20.0
    assert pack.form([result], stride=20.0)["stride"] == 20
    for stride in (12.5, 160.0):
        said = pack.form([result], stride=stride)["stride"]
        assert said == f"{stride:g} ms: the form takes whole milliseconds, 100 at most"


def test_an_upstream_is_asked_for_its_stride_where_results_do_not_know_it(tmp_path: Path) -> None:
    fields = {"spec": "fbank", "fingerprint": load("fbank").fingerprint()}
    write(tmp_path, "ks", words(1), ["accuracy"], ACCURACY, protocol="superb", **fields)
    out = tmp_path / "x.zip"
    assert cli.main(["submit", str(tmp_path), "--out", str(out)]) == 0
    assert json.loads(out.with_suffix(".form.json").read_text())["stride"] == 10
    (result,) = results.load_all(tmp_path)
    for other in ({"fingerprint": "another"}, {"spec": "/nowhere/exp"}, {"spec": "no-such-model"}):
        assert submit.known_stride([result.model_copy(update=other)]) is None


def test_turns_come_back_exactly() -> None:
    text = encode([Turn(0.0125, 1.25, "b"), Turn(0.5, 2.0, "a")])
    files = activity.pack({"r": text}, {"r": encode([Turn(0.0, 4.0, "x"), Turn(0.0, 1.0, "y")])})
    shift = int(files["frame_shift"])
    assert shift == 200  # 12.5 ms: the widest grid that has all times
    with h5py.File(io.BytesIO(files["scoring/predictions/r.h5"])) as file:
        activity_TS = file["T_hat"][()]
    assert activity_TS.shape == (4 * 16000 // shift, 2)
    for column, name in enumerate("ab"):
        (turn,) = [t for t in decode(text) if t.speaker == name]
        (on,) = np.nonzero(activity_TS[:, column])
        assert on[0] * shift / 16000 == pytest.approx(turn.start)
        assert len(on) * shift / 16000 == pytest.approx(turn.duration)


def test_what_cannot_be_submitted_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "ks", words(0), ["accuracy"], ACCURACY, protocol="superb")
    write(tmp_path, "ood_asr", [("s", "A B", "A B")] * 6, ["wer"],
          {"wer": "wer|norm:upper|unit:word|v1"}, protocol="superb")  # fmt: skip
    out = str(tmp_path / "x.zip")
    assert cli.main(["submit", str(tmp_path), "--out", out]) == 0
    assert "left out: ood_asr: the leaderboard does not take OOD-ASR" in capsys.readouterr().out
    assert cli.main(["submit", str(tmp_path), "--out", out, "--protocol", "fixed"]) == 2
    assert "there are: apc (superb)" in capsys.readouterr().err
    write(tmp_path, "er", words(0), ["accuracy"], ACCURACY, protocol="superb")
    assert cli.main(["submit", str(tmp_path), "--out", out]) == 0
    said = capsys.readouterr().out
    assert "x.zip: ks; 1 files" in said
    assert "left out: er: it is submitted in 5 folds, this result has 1" in said
    assert "not the leaderboard's test sets: ks (40 rows of mini, the leaderboard has 3081)" in said
    write(tmp_path, "ks", words(0), ["accuracy"], ACCURACY, protocol="superb", upstream="cpc")
    assert cli.main(["submit", str(tmp_path), "--out", out]) == 2
    assert "results of apc, cpc: choose one with --upstream" in capsys.readouterr().err
    assert cli.main(["submit", str(tmp_path), "--out", str(tmp_path / "x.tar")]) == 2
    assert "must end in .zip" in capsys.readouterr().err


def test_results_that_were_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {"protocol": "superb"}
    small = {"steps": "5", "heads": "small"}
    write(tmp_path, "sid", words(0), ["accuracy"], ACCURACY, settings=small, **options)
    out = str(tmp_path / "x.zip")
    assert cli.main(["submit", str(tmp_path), "--out", out]) == 2
    assert "; sid: its head is a small one: probe it without" in capsys.readouterr().err
    write(tmp_path, "ks", words(0), ["accuracy"], ACCURACY, head_params=7, **options)
    one = {"steps": "5", "layer": "3"}
    write(tmp_path, "ic", words(0), ["accuracy"], ACCURACY, settings=one, **options)
    write(tmp_path, "er", words(0), ["accuracy"], ACCURACY, protocol="fixed")
    assert cli.main(["submit", str(tmp_path), "--out", out]) == 0
    said = capsys.readouterr().out
    assert "left out: sid: its head is a small one" in said
    assert "left out: ic: its head reads layer 3 only" in said
    assert "left out: er: there are results of protocol fixed only" in said
    form = json.loads(Path(out).with_suffix(".form.json").read_text())
    assert form["taskSpecParam"] == {"ks": 7}
    assert cli.main(["submit", str(tmp_path), "--out", out, "--without", "ks"]) == 2
    write(
        tmp_path, "ks", words(3), ["accuracy"], ACCURACY, head_params=1, settings=small, **options
    )
    capsys.readouterr()
    assert cli.main(["submit", str(tmp_path), "--out", out, "--rehearsal"]) == 0
    said = capsys.readouterr().out
    assert "x.zip: ks, sid; 2 files" in said
    assert (
        "a rehearsal, not for the leaderboard: small heads of sid\n" in said
    )  # ks has a whole one
    assert "left out: ic: its head reads layer 3 only" in said
    assert b"?" not in safezip.read(Path(out))[P + KS]


def test_predictions_that_are_gone_or_of_another_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"protocol": "superb"}
    ks = write(tmp_path, "ks", words(0), ["accuracy"], ACCURACY, **options)
    command = "mynah probe apc sid"
    sid = write(tmp_path, "sid", words(1), ["accuracy"], ACCURACY, command=command, **options)
    sid.with_suffix(".tsv").unlink()
    out = tmp_path / "x.zip"
    assert cli.main(["submit", str(tmp_path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "left out: sid: its predictions are gone" in said
    assert "run `mynah probe apc sid --rerun always`" in said
    assert set(safezip.read(out)) == {P + KS}
    before = out.read_bytes()
    table = ks.with_suffix(".tsv")
    table.write_text(table.read_text().replace("\tyes\tyes\n", "\tyes\tno\n", 1))
    assert cli.main(["submit", str(tmp_path), "--out", str(out)]) == 2
    assert "they are not of one run" in capsys.readouterr().err
    assert out.read_bytes() == before
    table.unlink()
    assert cli.main(["submit", str(tmp_path), "--out", str(out)]) == 2
    assert "nothing to submit: ks: its predictions are gone" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.glob("x.*")) == ["x.form.json", "x.zip"]


def test_a_full_disk_leaves_what_was_there(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "x.zip"
    out.write_bytes(b"what was there")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert cli.main(["submit", str(made[0]), "--out", str(out)]) == 74
    assert out.read_bytes() == b"what was there"
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


# -- scores ------------------------------------------------------------------------------------


def test_scores_are_those_of_the_results(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.json"
    command = ["score", str(made[1]), "--against", str(made[0]), "--out", str(out)]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "superb_s (paper: pr, sid, ks" in said
    assert "not defined" not in said
    assert "note: not the leaderboard's test sets: asr (12 rows of mini" in said
    found = {(s["task"], s["lm"], s["metric"]): s for s in json.loads(out.read_text())["scores"]}
    own = {
        (r.task, bool(r.settings.get("lm")), name): (r, m)
        for r in results.load_all(made[0])
        for name, m in r.metrics.items()
    }
    assert found.keys() == own.keys()
    for key, (_, metric) in own.items():
        assert found[key]["value"] == pytest.approx(metric.scale * metric.value), key
        assert found[key]["interval"]["low"] == pytest.approx(metric.low), key
    assert 0 < found["ks", False, "accuracy"]["value"] < 100
    assert 0 < found["sd", False, "der"]["value"] < 100


def test_another_model_is_scored_against_anybodys_results(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "ks", [(u, r, r) for u, r, _ in words(0)], ["accuracy"], ACCURACY)
    lines = "".join(f"u{i}.wav {r}\n" for i, (_, r, _) in enumerate(words(0)))
    zipped = tmp_path / "theirs.zip"
    zipped.write_bytes(pack.as_zip({P + KS: lines.encode()}))
    assert cli.main(["score", str(zipped), "--against", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| ks | accuracy | 100.00 [100.00, 100.00] | 40, by speaker |" in said
    assert "not defined without pr, sid" in said
    assert cli.main(["score", str(zipped)]) == 2
    assert "name its test sets: --against" in capsys.readouterr().err


def zipped_by_s3prl(path: Path, files: Files) -> None:
    """Write a zip as ``zip -r predict.zip predict/`` does: folders too, not sorted, with times."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        folders = {str(parent) for name in files for parent in PurePosixPath(P + name).parents}
        for folder in sorted(folders - {"."}):
            archive.writestr(zipfile.ZipInfo(f"{folder}/", (2023, 5, 6, 7, 8, 10)), b"")
        for name, data in reversed(files.items()):
            archive.writestr(zipfile.ZipInfo(P + name, (2023, 5, 6, 7, 8, 10)), data)


def test_what_s3prl_packages(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines as s3prl's experts print them, scored by hand."""
    order = list(range(40))[::-1]
    right = [r for _, r, _ in words(0)]
    assert right[0] == "no"
    files: Files = {KS: "".join(f"u{i}.wav {right[i] if i else 'yes'}\n" for i in order).encode()}
    said = ["", *["HE SAW IT"] * 10, "HE SAW <unk>"]  # 3 deletions, 1 substitution, 36 words
    files["asr_public/predict.ark"] = "".join(f"u{i} {s}\n" for i, s in enumerate(said)).encode()
    slots = "GO TO  B-city PARS  E-cityX B-artist  E-artist"  # spaces as characters come
    files["sf_public/predict.ark"] = "".join(f"u{i} {slots}\n" for i in range(12)).encode()
    scores = np.where(np.arange(20) % 2, 0.75, -0.125).astype(np.float32)
    files["sv_public/predict.txt"] = "".join(f"u{i} {s}\n" for i, s in enumerate(scores)).encode()
    root = ElementTree.Element(
        "stdlist", termlist_filename="benchmark.stdlist.xml", language="english"
    )
    for query in range(6):
        terms = ElementTree.SubElement(root, "detected_termlist", termid=f"u{query}")
        for doc, score in (("d3", -1.0), ("d2", 0.5), ("d1", 2.2360)):
            ElementTree.SubElement(
                terms, "term", file=doc, channel="1", tbeg="0.000", dur="0.00",
                score=f"{score:.4f}", decision="YES" if score > 2 else "NO",
            )  # fmt: skip
    ElementTree.indent(root)
    files["qbe_public/benchmark.stdlist.xml"] = ElementTree.tostring(
        root, "UTF-8", xml_declaration=True
    )
    talks = np.zeros((100, 2), np.float32)  # of 20 ms; exact from above 0.35 to 0.55
    talks[:75, 0], talks[75:, 0], talks[50:, 1] = 0.55, 0.35, 0.9
    for recording in range(6):
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_dataset("T_hat", data=talks)
        files[f"sd_public/scoring/predictions/u{recording}.h5"] = buffer.getvalue()
    files["sd_public/frame_shift"] = b"320\n"
    files["se_public/metrics.txt"] = b"si_sdr 9.36\nstoi 0.936\npesq 2.5528\n"
    zipped, out = tmp_path / "predict.zip", tmp_path / "scores.json"
    zipped_by_s3prl(zipped, files)
    command = ["score", str(zipped), "--against", str(made[0]), "--out", str(out)]
    assert cli.main(command) == 0, capsys.readouterr().out
    found = {(s["task"], s["metric"]): s["value"] for s in json.loads(out.read_text())["scores"]}
    assert found["ks", "accuracy"] == pytest.approx(100 * 39 / 40)
    assert found["asr", "wer"] == pytest.approx(100 * 4 / 36)
    assert found["sf", "slot_type_f1"] == pytest.approx(100)
    assert found["sf", "slot_value_cer"] == pytest.approx(100 / 5)  # PARS for PARIS
    assert found["asv", "eer"] == pytest.approx(0)
    assert found["qbe", "mtwv"] == pytest.approx(100)
    assert found["sd", "der"] == pytest.approx(0)
    assert found["se", "pesq"] == 2.5528
    assert "| se | pesq | 2.55 | as claimed |" in capsys.readouterr().out
