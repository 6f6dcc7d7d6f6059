"""Submissions: packed, read back, refused when damaged in any of many ways, and scored offline."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "doubles"))
from resulting import ACCURACY, PER, Table, words, write

from mynah.recipes import cli, results
from mynah.recipes.submission import activity, layout, pack, safezip
from mynah.tasks.metrics.diarization import decode, encode
from mynah.tasks.metrics.mean import as_fields
from mynah.tasks.metrics.rttm import Turn
from mynah.tasks.metrics.term_search import encode_docs, encode_scores

Files = dict[str, bytes]
P = "predict/"
h5py = activity.hdf5()


def model(folder: Path, *, upstream: str = "apc") -> Path:
    """Write results of every task that the leaderboard takes, with some mistakes in each."""
    options: dict[str, Any] = {"upstream": upstream, "protocol": "superb"}
    some = words(1)
    known = [(u, r, "yes" if p == "?" else p) for u, r, p in some]
    for task in ("ks", "sid"):
        write(folder, task, known, ["accuracy"], ACCURACY, classes=("no", "yes"), **options)
    intents = [(u, f"{r}|lamp|room", f"{p}|lamp|room") for u, r, p in known]
    write(folder, "ic", intents, ["accuracy"], ACCURACY, **options)
    folded = {"accuracy": "accuracy|average:micro|folds:mean-of-5|v1"}
    write(
        folder, "er", known, ["accuracy"], folded,
        folds=[f"Session{1 + i % 5}" for i in range(len(known))], **options,
    )  # fmt: skip
    phones: Table = [(f"s{i % 6}", "AA B K", "AA B" if i % 3 else "AA B K") for i in range(12)]
    write(folder, "pr", phones, ["per"], PER, **options)
    text: Table = [(f"s{i % 6}", "HE SAW IT", "HE SAW" if i % 3 else "") for i in range(12)]
    write(folder, "asr", text, ["wer"], {"wer": "wer|norm:upper|unit:word|v1"}, **options)
    write(
        folder, "asr", [(u, r, r) for u, r, _ in text], ["wer"],
        {"wer": "wer|norm:upper|unit:word|lm:x|v1"}, settings={"lm": "x"}, **options,
    )  # fmt: skip
    trials: Table = [
        (f"t{i}", "target" if i % 2 else "nontarget", str((i * 7 % 20) / 10)) for i in range(20)
    ]
    write(folder, "asv", trials, ["eer"], {"eer": "eer|curve:linear|ties:together|v1"}, **options)
    said = [
        (f"q{i}", encode_docs(["d1"]), encode_scores({"d1": 1.0 - i % 2, "d2": 0.5, "d3": -2.0}))
        for i in range(6)
    ]
    sign = "mtwv|beta:12.49|default:-10|queries-without-target:left-out|v1"
    write(folder, "qbe", said, ["mtwv"], {"mtwv": sign}, unit="query", **options)
    slots: Table = [
        (f"s{i % 6}", "GO TO B-city PARIS E-city", "GO TO B-city PARS E-city") for i in range(12)
    ]
    names = {n: f"{n}|v1" for n in ("slot_type_f1", "slot_value_cer")}
    write(folder, "sf", slots, ["slot_type_f1", "slot_value_cer"], names, **options)
    true = encode([Turn(0.0, 1.5, "a"), Turn(1.0, 1.0, "b")])
    heard = encode([Turn(0.0, 1.25, "speaker1"), Turn(1.0, 1.0, "speaker2")])
    turns = [(f"r{i}", true, heard) for i in range(6)]
    write(folder, "sd", turns, ["der"], {"der": "der|collar:0.00|overlap:yes|v1"}, **options)
    lines: Table = [
        (f"s{i % 6}", "ein Haus steht am See", "ein Haus steht am Meer") for i in range(12)
    ]
    bleu = {"bleu": "bleu|case:mixed|tok:13a|v1"}
    write(folder, "st", lines, ["bleu"], bleu, scale=1.0, **options)
    for task, fields in (("se", ("pesq", "stoi")), ("ss", ("si_sdri",))):
        table = [(f"s{i}", "x", as_fields(dict.fromkeys(fields, 0.5 + i / 10))) for i in range(8)]
        write(
            folder, task, table, list(fields), {f: f"{f}|v1" for f in fields}, scale=1.0, **options
        )
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of results and the submission made of it."""
    folder = tmp_path_factory.mktemp("submission")
    model(folder / "results")
    zipped = folder / "x.zip"
    assert cli.main(["submit", str(folder / "results"), "--out", str(zipped)]) == 0
    return folder / "results", zipped


def files_of(zipped: Path) -> Files:
    return safezip.read(zipped)


def verdict(folder: Path, zipped: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = cli.main(["validate", str(zipped), "--against", str(folder)])
    said = capsys.readouterr()
    return code, said.out + said.err


# -- packing -----------------------------------------------------------------------------------


def test_names_and_lines_are_the_official_ones(made: tuple[Path, Path]) -> None:
    files = files_of(made[1])
    single = {P + part.path for part in layout.PARTS if part.task not in ("er", "sd")}
    folds = {f"{P}er_fold{k}_public/predict.txt" for k in range(1, 6)}
    turns = {f"{P}sd_public/scoring/predictions/u{i}.h5" for i in range(6)}
    assert set(files) == single | folds | turns | {f"{P}sd_public/frame_shift"}
    assert files[f"{P}ks_public/predict.txt"].startswith(b"u0 yes\nu1 yes\nu2 no\n")
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
    assert form["macs"] == "to fill in"  # these results were not counted
    assert form["taskSpecParam"]["ks"] == 3


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
    assert cli.main(["submit", str(tmp_path), "--out", out]) == 2
    assert "5 folds, this result has 1" in capsys.readouterr().err
    write(tmp_path, "ks", words(0), ["accuracy"], ACCURACY, protocol="superb", upstream="cpc")
    assert cli.main(["submit", str(tmp_path), "--out", out]) == 2
    assert "results of apc, cpc: choose one with --upstream" in capsys.readouterr().err
    assert cli.main(["submit", str(tmp_path), "--out", str(tmp_path / "x.tar")]) == 2
    assert "must end in .zip" in capsys.readouterr().err


# -- validation --------------------------------------------------------------------------------


def test_ones_own_submission_is_valid(
    made: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = verdict(*made, capsys)
    assert code == 0, said
    tasks = "asr, asr+lm, asv, er, ic, ks, pr, qbe, sd, se, sf, sid, ss, st"
    assert f"is valid: {tasks}" in said
    assert "se: means as claimed" in said


def replace(name: str, old: bytes, new: bytes, count: int = 1) -> Callable[[Files], None]:
    def damage(files: Files) -> None:
        assert old in files[P + name]
        files[P + name] = files[P + name].replace(old, new, count)

    return damage


def drop(name: str) -> Callable[[Files], None]:
    return lambda files: files.__delitem__(P + name)


def put(name: str, data: bytes) -> Callable[[Files], None]:
    return lambda files: files.__setitem__(P + name, data)


def activities(activity_TS: Any, name: str = "T_hat") -> Callable[[Files], None]:
    def damage(files: Files) -> None:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            file.create_dataset(name, data=activity_TS)
        files[P + "sd_public/scoring/predictions/u0.h5"] = buffer.getvalue()

    return damage


def linked(files: Files) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["T_hat"] = h5py.ExternalLink("/etc/passwd", "T_hat")
    files[P + "sd_public/scoring/predictions/u0.h5"] = buffer.getvalue()


KS, ASR, ASV = "ks_public/predict.txt", "asr_public/predict.ark", "sv_public/predict.txt"
QBE, SD = "qbe_public/benchmark.stdlist.xml", "sd_public/scoring/predictions/u0.h5"
DAMAGES: dict[str, tuple[Callable[[Files], None], str]] = {
    "line missing": (replace(KS, b"u3 yes\n", b""), "missing id (1): u3"),
    "strange id": (replace(KS, b"u3 ", b"v3 "), "id that the test set has not (1): v3"),
    "line twice": (replace(KS, b"u3 yes\n", b"u3 yes\nu3 yes\n"), "id twice (1): u3 (2 times)"),
    "unknown label": (replace(KS, b"u3 yes", b"u3 maybe"), "label that does not exist (1): u3: 'maybe'"),
    "label of another case": (replace(KS, b"u3 yes", b"u3 Yes"), "label that does not exist"),
    "no label": (replace(KS, b"u3 yes", b"u3"), "malformed line (1): line 4"),
    "tab for a space": (replace(KS, b"u3 yes", b"u3\tyes"), "malformed line"),
    "windows line ends": (replace(KS, b"\n", b"\r\n"), "carriage return"),
    "byte order mark": (replace(KS, b"u0 yes", b"\xef\xbb\xbfu0 yes"), "byte order mark"),
    "latin-1": (replace(KS, b"u3 yes", b"u3 y\xe9s"), "not UTF-8"),
    "zero byte": (replace(KS, b"u3 yes", b"u3 y\0s"), "zero bytes"),
    "empty": (put(KS, b""), "empty file"),
    "an empty line": (replace(KS, b"u3 yes\n", b"u3 yes\n\n"), "malformed line (1): line 5"),
    "another file's": (put(KS, b"<html></html>\n"), "malformed line"),
    "intent without location": (replace("ic_public/predict.csv", b",lamp,room", b",lamp"), "is not action,object,location"),
    "unknown object": (replace("ic_public/predict.csv", b",lamp,", b",cake,"), "label that does not exist (1): u0: 'cake'"),
    "score NaN": (replace(ASV, b"u3 0.1", b"u3 nan"), "score is no finite number (1): u3: 'nan'"),
    "score infinite": (replace(ASV, b"u3 0.1", b"u3 inf"), "score is no finite number"),
    "score a word": (replace(ASV, b"u3 0.1", b"u3 same"), "score is no finite number"),
    "all scores alike": (lambda f: f.__setitem__(P + ASV, b"".join(b"u%d 1.0\n" % i for i in range(20))), "all scores are the same (1): 1"),
    "unknown phone": (replace("pr_public/predict.ark", b"AA B", b"QQ B"), "phone that does not exist (1): u0: 'QQ'"),
    "phones in lower case": (replace("pr_public/predict.ark", b"AA B", b"aa B"), "phone that does not exist"),
    "two spaces": (replace("pr_public/predict.ark", b"AA B", b"AA  B"), "spaces that are not single"),
    "words in lower case": (replace(ASR, b"HE SAW", b"he saw"), "lower-case letters where references have none"),
    "punctuation": (replace(ASR, b"HE SAW", b"HE SAW!"), "character that references never have (1): u1: '!'"),
    "digits": (replace(ASR, b"HE SAW", b"HE SAW 2"), "character that references never have"),
    "lm file damaged": (replace("asr_lm_public/predict.ark", b"u3 ", b"w3 "), "asr_lm_public/predict.ark: missing id (1): u3"),
    "slot text in lower case": (replace("sf_public/predict.ark", b"PARS", b"pars"), "lower-case letters"),
    "fold missing": (drop("er_fold3_public/predict.txt"), "fold missing (1): 3"),
    "sixth fold": (put("er_fold6_public/predict.txt", b"u0 yes\n"), "fold that there is not (1): 6"),
    "folds swapped": (lambda f: f.update({P + "er_fold1_public/predict.txt": f[P + "er_fold2_public/predict.txt"]}), "er_fold1_public/predict.txt: missing id (8): u0; u5"),
    "query missing": (replace(QBE, b'termid="u3"', b'termid="u99"'), "missing id (1): u3"),
    "document missing": (replace(QBE, b'file="d2"', b'file="d9"'), "missing document (1): u0, d2"),
    "document twice": (replace(QBE, b'file="d2"', b'file="d1"'), "document twice (1): u0, d1"),
    "score of a term NaN": (replace(QBE, b'score="0.5"', b'score="nan"'), "score is no finite number"),
    "decision": (replace(QBE, b'decision="NO"', b'decision="PERHAPS"'), "decision is neither YES nor NO"),
    "xml cut off": (replace(QBE, b"</stdlist>", b""), "no well-formed XML"),
    "xml bomb": (replace(QBE, b"<stdlist", b'<!DOCTYPE a [<!ENTITY b "bb">]><stdlist'), "document type in XML"),
    "another xml": (put(QBE, b"<html/>"), "no stdlist"),
    "recording missing": (drop(SD), "sd_public: missing id (1): u0"),
    "no frame shift": (drop("sd_public/frame_shift"), "no frame_shift"),
    "frame shift in seconds": (put("sd_public/frame_shift", b"0.01\n"), "frame shift is no number of samples"),
    "no hdf5": (put(SD, b"not hdf5"), "no HDF5, or a damaged one (1): u0"),
    "no T_hat": (activities(np.zeros((20, 2)), "t_hat"), "no T_hat (1): u0"),
    "one dimension": (activities(np.zeros(20)), "wrong shape of T_hat"),
    "activity over one": (activities(np.full((20, 2), 1.5)), "activity outside 0 to 1"),
    "activity NaN": (activities(np.full((20, 2), np.nan)), "activity outside 0 to 1"),
    "one speaker": (activities(np.zeros((20, 1))), "columns for too few speakers"),
    "too short": (activities(np.zeros((2, 2))), "recording that ends before its speech does"),
    "activities of letters": (activities(np.full((20, 2), b"a")), "holds no numbers"),
    "link to another file": (linked, "no T_hat (1): u0"),
    "header": (replace("st_public/predict.tsv", b"utt_id\thyp", b"id\thyp"), "wrong header"),
    "a reference changed": (replace("st_public/predict.tsv", b"am See", b"am Meer"), "reference that was changed (1): u0"),
    "column missing": (replace("st_public/predict.tsv", b"Meer\tein", b"Meer ein"), "malformed line (1): line 2"),
    "pesq of ten": (replace("se_public/metrics.txt", b"pesq 0.85", b"pesq 10.0"), "value out of range (1): pesq: '10.0'"),
    "stoi in per cent": (replace("se_public/metrics.txt", b"stoi 0.85", b"stoi 85.0"), "value out of range"),
    "metric missing": (replace("se_public/metrics.txt", b"stoi 0.85\n", b""), "missing metric (1): stoi"),
    "metric twice": (put("ss_public/metrics.txt", b"si_sdr 1.0\nsi_sdr 2.0\n"), "metric twice (1): si_sdr"),
    "another metric": (put("ss_public/metrics.txt", b"si_sdr 1.0\nsdr 2.0\n"), "metric that there is not (1): sdr"),
    "file too many": (put("notes.txt", b"hello"), "file that no task knows (1): predict/notes.txt"),
    "folder of another name": (lambda f: f.update({P + "KS/predict.txt": f.pop(P + KS)}), "file that no task knows"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused_with_its_reason(
    made: tuple[Path, Path], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, reason = DAMAGES[name]
    files = files_of(made[1])
    damage(files)
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(pack.as_zip(files))
    code, said = verdict(made[0], damaged, capsys)
    assert code == 1
    assert reason in said
    assert "NOT valid" in said
    if name in ("line missing", "recording missing"):
        assert cli.main(["score", str(damaged), "--against", str(made[0])]) == 1
        assert "is not scored" in capsys.readouterr().out


def test_the_first_five_of_each_kind(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = files_of(made[1])
    files[P + KS] = files[P + KS].replace(b" yes", b" what")
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(pack.as_zip(files))
    _, said = verdict(made[0], damaged, capsys)
    count = files[P + KS].count(b"what")
    line = next(line for line in said.splitlines() if "label that does not exist" in line)
    assert f"({count}): u0" in line
    assert line.count("'what'") == 5
    assert line.endswith(f"and {count - 5} more")


def test_a_task_without_test_set_is_no_pass(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "ks", words(0), ["accuracy"], ACCURACY, protocol="superb")
    code, said = verdict(tmp_path, made[1], capsys)
    assert code == 1
    assert "task sid: no test set to hold it against" in said


def test_results_on_two_test_sets(made: tuple[Path, Path], tmp_path: Path) -> None:
    write(tmp_path, "ks", words(0), ["accuracy"], ACCURACY)
    write(tmp_path, "ks", words(0, each=4), ["accuracy"], ACCURACY, corpus="other")
    from mynah.recipes.submission.against import truths

    with pytest.raises(ValueError, match="ks on several test sets"):
        truths(tmp_path)
    assert truths(tmp_path, corpus=["other"])["ks"].result.corpus == "other"
    with pytest.raises(ValueError, match="no result of the corpora"):
        truths(tmp_path, corpus=["none"])


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
    found = {(s["task"], s["lm"], s["metric"]): s for s in json.loads(out.read_text())["scores"]}
    own = {
        (r.task, bool(r.settings.get("lm")), name): (r, m)
        for r in results.load_all(made[0])
        for name, m in r.metrics.items()
    }
    assert found.keys() == own.keys()
    for key, (_, metric) in own.items():
        assert found[key]["value"] == pytest.approx(metric.scale * metric.value), key
        if key[0] not in ("se", "ss"):
            assert found[key]["interval"]["low"] == pytest.approx(metric.low), key
    assert 0 < found["ks", False, "accuracy"]["value"] < 100
    assert 0 < found["sd", False, "der"]["value"] < 100


def test_another_model_is_scored_against_anybodys_results(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "ks", [(u, r, r) for u, r, _ in words(0)], ["accuracy"], ACCURACY)
    lines = "".join(f"u{i} {r}\n" for i, (_, r, _) in enumerate(words(0)))
    zipped = tmp_path / "theirs.zip"
    zipped.write_bytes(pack.as_zip({P + KS: lines.encode()}))
    assert cli.main(["score", str(zipped), "--against", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| ks | accuracy | 100.00 [100.00, 100.00] | 40, by speaker |" in said
    assert "not defined without pr, sid" in said
    assert cli.main(["score", str(zipped)]) == 2
    assert "name its test sets: --against" in capsys.readouterr().err


# -- zips that lie -----------------------------------------------------------------------------


def zipped_with(path: Path, *entries: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../x.txt", "leads out of the folder"),
        ("predict/../../x.txt", "leads out of the folder"),
        ("/etc/x.txt", "absolute name"),
        ("C:/x.txt", "absolute name"),
        ("a\\b.txt", "characters that no file name"),
        ("a\nb.txt", "characters that no file name"),
        ("a//b.txt", "empty, or begins or ends"),
        ("./a.txt", "empty, or begins or ends"),
        ("a /b.txt", "empty, or begins or ends"),
        ("a.\u200btxt", "invisible characters"),
        ("a\u202etxt", "invisible characters"),
    ],
)
def test_names_that_lie(tmp_path: Path, name: str, reason: str) -> None:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    path = zipped_with(tmp_path / "x.zip", (info, b"1"))
    with pytest.raises(safezip.UnsafeZipError, match=reason):
        safezip.read(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"

    def refused(reason: str) -> None:
        with pytest.raises(safezip.UnsafeZipError, match=reason):
            safezip.read(path)

    zipped_with(path, ("a.txt", b"1"), ("a.txt", b"2"))
    refused("same or a confusable name")
    zipped_with(path, ("a.txt", b"1"), ("A.TXT", b"2"))
    refused("same or a confusable name")
    zipped_with(path, ("\u00e9.txt", b"1"), ("e\u0301.txt", b"2"))
    refused("same or a confusable name")
    zipped_with(path, ("a", b"1"), ("a/b", b"2"))
    refused("is a file and a folder")
    link = zipfile.ZipInfo("a.txt")
    link.external_attr = 0o120777 << 16
    zipped_with(path, (link, b"/etc/passwd"))
    refused("a link or a device")
    zipped_with(path, ("a.txt", bytes(4 * 2**20)))
    refused("that is a bomb")
    zipped_with(path, *((f"{i}.txt", b"") for i in range(safezip.MEMBERS + 1)))
    refused("entries; at most")
    zipped_with(path)
    refused("is empty")
    path.write_bytes(b"PK but no zip")
    refused("is no zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.txt", b"1" * 100)
    refused("neither stored nor deflated")
    zipped_with(path, ("a.txt", b"hello" * 100))
    whole = bytearray(path.read_bytes())
    whole[40] ^= 0xFF
    path.write_bytes(whole)
    refused("damaged")
    zipped_with(path, ("a.txt", b"hello"))
    data = path.read_bytes()
    path.write_bytes(
        data.replace(b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00")
    )
    refused("is encrypted")
    with pytest.raises(FileNotFoundError, match="no such file"):
        safezip.read(tmp_path / "none.zip")


def test_entries_that_share_bytes(tmp_path: Path) -> None:
    path = zipped_with(tmp_path / "x.zip", ("a.txt", b"1" * 50), ("b.txt", b"2" * 50))
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    infos[1].header_offset = infos[0].header_offset + 5
    with pytest.raises(safezip.UnsafeZipError, match="overlap"):
        safezip.check(infos, path)
    infos[1].header_offset = 10_000
    infos[1].file_size = safezip.MEMBER_BYTES + 1
    with pytest.raises(safezip.UnsafeZipError, match="at most"):
        safezip.check(infos, path)
