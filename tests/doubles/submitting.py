"""A model's results of every task that the leaderboard takes, and the submission that is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from resulting import ACCURACY, PER, Table, words, write

from mynah.recipes import cli
from mynah.tasks.metrics.diarization import encode
from mynah.tasks.metrics.mean import as_fields
from mynah.tasks.metrics.rttm import Turn
from mynah.tasks.metrics.term_search import encode_docs, encode_scores

Files = dict[str, bytes]
P = "predict/"


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


def rename(path: Path, ids: list[str]) -> None:
    """Give the rows of a result other ids than u0, u1, ..."""
    table = path.with_suffix(".tsv")
    head, *lines = table.read_text().splitlines()
    rows = [name + line[line.index("\t") :] for name, line in zip(ids, lines, strict=True)]
    table.write_text("\n".join([head, *rows]) + "\n")


def submitted(folder: Path) -> tuple[Path, Path]:
    """Write a model's results and submit them; returns their folder and the zip."""
    model(folder / "results")
    zipped = folder / "x.zip"
    assert cli.main(["submit", str(folder / "results"), "--out", str(zipped)]) == 0
    return folder / "results", zipped


def verdict(
    folder: Path, zipped: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str]:
    """Validate a submission against results; returns the exit status and all that was said."""
    code = cli.main(["validate", str(zipped), "--against", str(folder), *options])
    said = capsys.readouterr()
    return code, said.out + said.err
