"""``mynah judge methods`` with converters that speak in one voice each, and ``--to``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from method_pages import row, value, words
from sayings import made

from mynah.recipes import cli
from mynah.recipes.conversion.free_pairs import draw_free
from mynah.recipes.conversion.pairs import draw
from mynah.tasks.corpora.corpus import Corpus

SAME = {"sentence": "text", "split": "all", "vocoder": "griffin_lim"}
ROW = "taco2_ar-tiny, one for each target"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return made(tmp_path_factory.mktemp("speech") / "audio", speakers="abc")


@pytest.fixture(scope="module")
def runs(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Converters to two of three speakers, hardly trained: that is not what is tested."""
    folder = tmp_path_factory.mktemp("runs")
    for speaker in "ab":
        command = [
            "pretrain",
            "vc/taco2_ar-tiny",
            "--corpus",
            str(corpus.folder),
            "--split",
            "test",
        ]
        command += ["--speaker", speaker, "--steps", "2", "train.crop_seconds=0.5"]
        assert cli.main([*command, "--out", str(folder / speaker)]) == 0
    return {speaker: folder / speaker for speaker in "ab"}


def test_pairs_have_the_targets_that_are_asked_for(corpus: Corpus) -> None:
    utterances = corpus.utterances()
    for found in (
        draw(utterances, sentence="text", to=("b", "a"), pairs=100),
        draw_free(utterances, to=("b", "a"), pairs=100, targets=2),
    ):
        assert {p.target.speaker for p in found} == {"a", "b"}
        assert {p.source.speaker for p in found} == {"a", "b", "c"}
    with pytest.raises(ValueError, match=r"--to x: no such speaker .* a, b, c"):
        draw(utterances, sentence="text", to=("a", "x"))
    with pytest.raises(ValueError, match="--to x: no such speaker"):
        draw_free(utterances, to=("x",))


def test_every_target_has_its_own_converter_and_they_are_one_row(
    corpus: Corpus, runs: dict[str, Path], tmp_path: Path
) -> None:
    out, kept = tmp_path / "m.json", tmp_path / "kept"
    methods = [str(path) for path in runs.values()]
    command = words(corpus, out, *methods, **SAME, pairs=2, targets=2, keep=kept)
    assert cli.main([*command, "--to", "a", "--to", "b"]) == 0
    page: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert page["to"] == ["a", "b"]
    assert {p["target_speaker"] for p in page["pairs"]} == {"a", "b"}
    found = row(page, ROW)
    assert [one["method"] for one in page["rows"]].count(ROW) == 1
    assert found["kind"] == "method"
    assert found["n"] == 2
    assert found["identity"]["method"] == "taco2_ar"
    own = found["identity"]["by_target"]
    assert {name: one["speaker"] for name, one in own.items()} == {"a": "a", "b": "b"}
    assert own["a"]["fingerprint"] != own["b"]["fingerprint"]
    assert value(page, ROW, "mcd") > 0
    # each conversion is what the converter to its target makes of the source, and no other's
    index = next(i for i, p in enumerate(page["pairs"]) if p["target_speaker"] == "b")
    pair = page["pairs"][index]
    by_id = {u.id: u for u in corpus.utterances()}
    references = [by_id[name].path for name in pair["references"]]
    audio = {}
    for speaker, path in runs.items():
        alone = tmp_path / f"{speaker}.wav"
        command = ["convert", "--model", str(path), "--source", str(by_id[pair["source"]].path)]
        command += ["--target", *references, "--vocoder", "griffin_lim", "--out", str(alone)]
        assert cli.main(command) == 0
        audio[speaker] = samples(alone)
    made_here = samples(Path(found["conversions"][index]["file"]))
    assert apart(made_here, audio["b"]) < 1e-3 < apart(made_here, audio["a"])


def test_the_demo_says_whose_voice_it_is(runs: dict[str, Path]) -> None:
    from mynah.recipes.demo_page.machines import trained

    name, method = trained(runs["b"])
    assert name == "b, speaks as b"
    assert "speaks as b, whoever is chosen as target" in method.note


def samples(path: Path) -> Any:
    import soundfile

    return soundfile.read(path)[0]


def apart(one: Any, other: Any) -> float:
    """Root mean square of the difference."""
    return float(((one - other) ** 2).mean() ** 0.5)


def test_targets_without_a_converter_and_two_of_one_voice(
    corpus: Corpus, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    twin = tmp_path / "twin"
    shutil.copytree(runs["a"], twin)
    for methods, options, status, message in (
        ((runs["a"], runs["b"]), {}, 2, "have the targets c too: train one for each of them"),
        ((runs["a"],), {"to": "c"}, 2, "--to a"),
        ((runs["a"], twin), {"to": "a"}, 2, "the second taco2_ar-tiny that speaks as a"),
        ((runs["a"],), {"to": "x"}, 3, "--to x: no such speaker"),
    ):
        command = words(corpus, tmp_path / "m.json", *map(str, methods), **(SAME | options))
        assert cli.main(command) == status
        assert message in capsys.readouterr().err
    assert not (tmp_path / "m.json").exists()
