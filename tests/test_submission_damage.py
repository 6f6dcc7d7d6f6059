"""A submission damaged in any of many ways is refused, each time with its reason."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "doubles"))
from resulting import ACCURACY, words, write
from submitting import Files, P, submitted, verdict

from mynah.recipes import cli
from mynah.recipes.submission import activity, pack, safezip

h5py = activity.hdf5()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of results and the submission made of it."""
    return submitted(tmp_path_factory.mktemp("damage"))


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


def hollow(files: Files) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:  # nothing of it is ever written: two kilobytes
        file.create_dataset("T_hat", (2**28, 2), "f4", chunks=(2**20, 2), compression="gzip")
    assert len(buffer.getvalue()) < 2**16
    files[P + "sd_public/scoring/predictions/u0.h5"] = buffer.getvalue()


def filtered(files: Files) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("T_hat", data=np.zeros((20, 2)), chunks=(20, 2), scaleoffset=2)
    files[P + "sd_public/scoring/predictions/u0.h5"] = buffer.getvalue()


KS, ASR, ASV = "ks_public/predict.txt", "asr_public/predict.ark", "sv_public/predict.txt"
QBE, SD = "qbe_public/benchmark.stdlist.xml", "sd_public/scoring/predictions/u0.h5"
DAMAGES: dict[str, tuple[Callable[[Files], None], str]] = {
    "line missing": (replace(KS, b"u3.wav yes\n", b""), "missing id (1): u3.wav"),
    "strange id": (replace(KS, b"u3.wav ", b"v3.wav "), "id that the test set has not (1): v3.wav"),
    "line twice": (replace(KS, b"u3.wav yes\n", b"u3.wav yes\nu3.wav yes\n"), "id twice (1): u3.wav (2 times)"),
    "unknown label": (replace(KS, b"u3.wav yes", b"u3.wav maybe"), "label that does not exist (1): u3.wav: 'maybe'"),
    "id without its ending": (replace(KS, b"u3.wav ", b"u3 "), "missing id (1): u3.wav"),
    "label of another case": (replace(KS, b"u3.wav yes", b"u3.wav Yes"), "label that does not exist"),
    "no label": (replace(KS, b"u3.wav yes", b"u3.wav"), "malformed line (1): line 4"),
    "tab for a space": (replace(KS, b"u3.wav yes", b"u3.wav\tyes"), "malformed line"),
    "windows line ends": (replace(KS, b"\n", b"\r\n"), "carriage return"),
    "byte order mark": (replace(KS, b"u0.wav yes", b"\xef\xbb\xbfu0.wav yes"), "byte order mark"),
    "latin-1": (replace(KS, b"u3.wav yes", b"u3.wav y\xe9s"), "not UTF-8"),
    "zero byte": (replace(KS, b"u3.wav yes", b"u3.wav y\0s"), "zero bytes"),
    "empty": (put(KS, b""), "empty file"),
    "an empty line": (replace(KS, b"u3.wav yes\n", b"u3.wav yes\n\n"), "malformed line (1): line 5"),
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
    "slot that does not exist": (replace("sf_public/predict.ark", b"B-city PARS E-city", b"B-town PARS E-town"), "slot that does not exist (2): u0: 'town'"),
    "half a symbol": (replace(ASR, b"HE SAW", b"HE SAW <UN"), "character that references never have (1): u1: '<'"),
    "decomposed letter": (replace(ASR, b"HE SAW", "HE SA\u0300W".encode()), "character that references never have"),
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
    "one speaker": (activities(np.zeros((20, 1))), "columns for another number of speakers"),
    "three speakers": (activities(np.zeros((20, 3))), "u0: 3, the test set has 2 speakers"),
    "too short": (activities(np.zeros((2, 2))), "recording that ends before its speech does"),
    "activities of letters": (activities(np.full((20, 2), b"a")), "holds no numbers"),
    "gigabytes of zeros": (hollow, "too many activities to be read (1): u0"),
    "a foreign filter": (filtered, "T_hat is compressed by a foreign filter (1): u0"),
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
    files = safezip.read(made[1])
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
    files = safezip.read(made[1])
    files[P + KS] = files[P + KS].replace(b" yes", b" what")
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(pack.as_zip(files))
    _, said = verdict(made[0], damaged, capsys)
    count = files[P + KS].count(b"what")
    line = next(line for line in said.splitlines() if "label that does not exist" in line)
    assert f"({count}): u0.wav" in line
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
