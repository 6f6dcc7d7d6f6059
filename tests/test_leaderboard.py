"""``mynah leaderboard``: what the pages say, byte for byte the same, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent / "doubles"))
from resulting import ACCURACY, PER, PHONES, perfect, words, write

from mynah.recipes import cli, kept, results
from mynah.recipes.published import comparable
from mynah.recipes.published.comparable import CORPORA
from mynah.recipes.site.entries import slug_of
from mynah.recipes.submission import layout
from mynah.tasks import get as task_of

HOSTILE = "<img src=x onerror=alert(1)>\"&'</script>"


def make(folder: Path) -> Path:
    write(folder, "ks", words(1), ["accuracy"], ACCURACY, upstream="good", fingerprint="g")
    write(folder, "ks", words(3), ["accuracy"], ACCURACY, upstream="bad", fingerprint="b")
    write(
        folder, "pr", PHONES, ["per"], PER, upstream="bad", fingerprint="b", upstream_macs=7_000_000
    )
    for layer in (0, 1):
        write(
            folder / f"layer{layer}", "ks", words(1 + layer), ["accuracy"], ACCURACY, upstream="good",
            fingerprint="g", settings={"layer": str(layer)},
        )  # fmt: skip
    return folder


def site(tmp_path: Path, *folders: Path, options: tuple[str, ...] = ()) -> Path:
    out = tmp_path / "site"
    assert cli.main(["leaderboard", *map(str, folders), "--out", str(out), *options]) == 0
    return out


def as_published(folder: Path, *tasks: str) -> None:
    """Say of results that they are on SUPERB's corpora under protocol superb."""
    for path, r in kept.pairs(folder):
        if not tasks or r.task in tasks:
            steps = {"steps": str(task_of(r.task).TASK.PROTOCOLS["superb"].steps)}
            said = {
                "corpus": CORPORA[r.task][0], "protocol": "superb", "settings": r.settings | steps,
            }  # fmt: skip
            table = path.with_suffix(".tsv")
            made = results.save(
                r.model_copy(update={**said, "predictions": f"published-{table.name}"}), folder
            )
            path.unlink()
            table.rename(made.with_name(f"published-{table.name}"))


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test set of a few utterances be the whole one."""
    monkeypatch.setattr(layout, "SIZES", {})


def row(index: str, name: str) -> str:
    """Return the row of a model."""
    found = re.search(
        rf"<tr[^>]*>\n<th[^\n]*>{re.escape(name)}(</a>| <span class=\"ci\">\(published\)).*?</tr>",
        index,
        re.DOTALL,
    )
    assert found is not None, name
    return found[0]


def order(index: str) -> list[str]:
    """Return the names of the rows."""
    return re.findall(r'<th scope="row" data-sort="([^"]*)"', index)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_the_pages_say(tmp_path: Path) -> None:
    out = site(tmp_path, make(tmp_path / "results"))
    good, bad = slug_of("good", "g"), slug_of("bad", "b")
    index = (out / "index.html").read_text()
    assert f'<a href="models/{good}.html">good</a>' in index
    assert re.search(r'class="best">80\.0 <span class="ci">\[80\.0, 80\.0\]</span>', index)
    assert index.count('class="best"') == 1  # of PR there is one model only
    assert "2 models, 2 kinds of score" in index
    page = (out / "models" / f"{good}.html").read_text()
    assert "1 of 2" in page
    assert "Hidden states by themselves" in page
    assert "hidden state. 0: 80.00; 1: 60.00" in page
    assert "Hidden states" not in (out / "models" / f"{bad}.html").read_text()
    assert "7 million multiply-accumulates" in (out / "models" / f"{bad}.html").read_text()


def test_the_data_are_those_of_the_results(tmp_path: Path) -> None:
    data = json.loads((site(tmp_path, make(tmp_path / "r")) / "data" / "results.json").read_text())
    good, bad = slug_of("good", "g"), slug_of("bad", "b")
    (score,) = data["models"][good]["scores"]
    assert (score["task"], score["metric"], score["value"]) == ("ks", "accuracy", pytest.approx(80))
    assert [p["value"] for p in data["models"][good]["layers"][0]["points"]] == pytest.approx(
        [80, 60]
    )
    assert data["models"][good]["aggregates"]["paper"]["superb_s"] is None
    (pair,) = data["pairs"].values()
    assert list(data["pairs"]) == [f"{bad}|{good}"]
    paired = next(p for p in pair if p["task"] == "ks")
    assert (paired["better"], paired["low"], paired["high"]) == (
        -40,
        -40,
        -40,
    )  # every speaker alike
    assert next(p for p in pair if p["task"] == "pr")["why"] == "only the first has it"


@pytest.mark.usefixtures("any_size")
def test_a_whole_model_stands_among_published_ones(tmp_path: Path) -> None:
    perfect(tmp_path / "r")
    as_published(tmp_path / "r")
    out = site(tmp_path, tmp_path / "r", options=("--with-published",))
    index = (out / "index.html").read_text()
    assert 'HuBERT Base <span class="ci">(published)</span>' in index
    assert '96.79<span class="mark"> †</span>' in index  # recalled, and says so
    assert order(index)[0] == "perfect"  # better than all
    assert "‡" not in index
    data = json.loads((out / "data" / "results.json").read_text())
    (model,) = data["models"].values()
    assert model["aggregates"]["paper"]["superb_s"]["value"] > 1000
    assert model["aggregates"]["paper"]["superb_r"]["value"] == 15.0
    assert len(model["aggregates"]["paper"]["among_published"]) == 10
    page = (out / "models" / f"{slug_of('perfect', 'f')}.html").read_text()
    beside = re.search(r'data-sort="HuBERT Large">HuBERT Large</th>(.*?)</tr>', page)
    assert beside is not None
    assert re.findall(r">(-?\d+)</td>", beside[1])[::3] == ["10", "10"]  # tasks, better in
    assert ">919</td>" in beside[1]  # its published superb_s
    assert "HuBERT" not in (site(tmp_path, tmp_path / "r") / "index.html").read_text()


def test_other_corpora_are_not_ranked_among_published_rows(tmp_path: Path) -> None:
    perfect(tmp_path / "r", upstream="right")
    make(tmp_path / "r")
    out = site(tmp_path, tmp_path / "r", options=("--with-published",))
    index = (out / "index.html").read_text()
    assert order(index)[:3] == ["right", "good", "bad"]  # apart, before the published rows
    assert "not ranked among published rows" in row(index, "right")
    assert 'class="apart"' in row(index, "right")
    rank = re.search(r'data-views="all paper" data-sort="([^"]*)">(\S+)', row(index, "right"))
    assert rank is not None
    assert rank.groups() == (
        "",
        "0.30",
    )  # above two models in KS, one in PR, of ten tasks; never sorted
    data = json.loads((out / "data" / "results.json").read_text())
    aggregates = data["models"][slug_of("right", "f")]["aggregates"]["paper"]
    assert aggregates["among_published"] == []
    assert re.search(r">12\.80<", row(index, "HuBERT Large"))  # of the published fifteen alone
    # published numbers stand in columns of SUPERB's corpora, which own results are not in
    heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', index)
    heads = [re.sub(r"<[^>]*>", "", head) for head in heads]
    mini, theirs = (
        heads.index("ks mini accuracy↑ fixed"),
        heads.index("ks speech_commands accuracy↑ superb"),
    )
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row(index, "HuBERT Base"))
    assert (cells[mini], cells[theirs]) == ("–", "96.30")
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row(index, "good"))
    assert cells[theirs] == "–"
    assert cells[mini].startswith("80.0")
    page = (out / "models" / f"{slug_of('right', 'f')}.html").read_text()
    assert "not among published rows" in page
    assert "Among published rows" not in page


@pytest.mark.usefixtures("any_size")
def test_of_a_model_only_such_tasks_count_as_were_published(tmp_path: Path) -> None:
    perfect(tmp_path / "r")
    as_published(tmp_path / "r", "ks", "pr")
    write(
        tmp_path / "r",
        "ks",
        words(2),
        ["accuracy"],
        ACCURACY,
        upstream="perfect",
        protocol="superb",
    )
    out = site(tmp_path, tmp_path / "r", options=("--with-published",))
    data = json.loads((out / "data" / "results.json").read_text())
    (model,) = data["models"].values()
    aggregates = model["aggregates"]["paper"]
    assert aggregates["among_published"] == ["ks", "pr"]
    assert aggregates["superb_s"] is None
    assert aggregates["superb_r"]["value"] == pytest.approx(2 * 15 / 10)  # what is missing counts 0
    index = (out / "index.html").read_text()
    assert "among published rows counts only ks, pr" in index
    assert index.count("96.30") == 1  # in the one column of the corpus that both are of
    page = (out / "models" / f"{slug_of('perfect', 'f')}.html").read_text()
    assert "superb_r over these tasks, among SUPERB’s fifteen: 15.00" in page


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize(
    ("other", "remark"),
    [
        ({}, None),
        ({"settings": {"steps": "1"}}, "ks (updates 1, not 200000)"),
        ({"settings": {"layer_norm": "true"}}, "ks (layer norm true, not false)"),
        ({"settings": {"splits": "made"}}, "ks (splits made, not corpus)"),
        ({"settings": {"layer": "3"}}, "ks (layer 3, not weighted sum)"),
        ({"settings": {"learning_rates": "0.5"}}, None),
        ({"task_version": 1}, "ks (version 1 of the task, not 3)"),
    ],
)
def test_what_is_not_as_the_protocol_has_it_is_not_published_beside(
    tmp_path: Path, other: dict[str, Any], remark: str | None
) -> None:
    said = {"protocol": "superb", "corpus": "speech_commands", **other}
    path = write(tmp_path, "ks", words(1), ["accuracy"], ACCURACY, **said)
    entries = {"ks": [(path, results.load(path))]}
    assert comparable.counted(entries) == ([] if remark else ["ks"])
    assert comparable.remarks(entries) == (
        [f"not as the protocol has it: {remark}"] if remark else []
    )


def test_a_part_of_a_test_set_is_not_the_test_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    perfect(tmp_path / "r")
    as_published(tmp_path / "r", "ks")
    cli.main(["score", str(tmp_path / "r")])
    said = capsys.readouterr().out
    assert "| perfect (superb) ‡ |" in said
    assert (
        "not the whole test sets: ks 40 rows of speech_commands, the leaderboard has 3081" in said
    )


@pytest.mark.usefixtures("any_size")
def test_published_rows_rank_as_score_ranks_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "r")
    (folder / "layer0").rename(tmp_path / "layer0")  # the site shows these apart, score beside
    (folder / "layer1").rename(tmp_path / "layer1")
    as_published(folder)
    index = (site(tmp_path, folder, options=("--with-published",)) / "index.html").read_text()
    capsys.readouterr()
    cli.main(["score", str(folder)])
    table = capsys.readouterr().out
    assert "‡" not in table
    for name, alone in (("HuBERT Large", "12.80"), ("FBANK", "0.30")):
        told = re.search(rf"\| {name} \(published\) \| \S+ \| (\S+) \|", table)
        assert told is not None
        assert f">{told[1]}<" in row(index, name)
        assert told[1] != alone  # two models of ours stand below
    for name in ("good", "bad"):
        told = re.search(rf"\| {name} \(superb\) \| not defined \| (\S+) ", table)
        assert told is not None
        assert f">{told[1]} <" in row(index, name)


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    folder = make(tmp_path / "results")
    first = contents(site(tmp_path, folder))
    second = contents(site(tmp_path, folder))  # in place of the first
    assert first == second
    assert not list(tmp_path.glob(".site*"))


def test_names_are_text(tmp_path: Path) -> None:
    write(tmp_path / "r" / "a", "ks", words(1), ["accuracy"], ACCURACY, upstream="x", spec=HOSTILE,
          command=HOSTILE, corpus="mini")  # fmt: skip
    file = next((tmp_path / "r").rglob("*.json"))
    file.write_text(
        file.read_text().replace('"upstream": "x"', f'"upstream": {json.dumps(HOSTILE)}')
    )
    out = site(tmp_path, tmp_path / "r", options=("--title", HOSTILE))
    pages = [p.read_text() for p in out.rglob("*.html")]
    assert len(pages) == 3
    for page in pages:
        assert "<img" not in page
        assert page.count("</script>") == page.count("<script")
    assert slug_of(HOSTILE, "f").startswith("img-src-x-onerror-alert-1-")


def test_slugs_stay_and_differ() -> None:
    assert slug_of("apc", "1") == slug_of("apc", "1")
    assert slug_of("apc", "1") != slug_of("apc", "2")
    assert slug_of("a/b", "1") != slug_of("a b", "1")
    assert re.fullmatch(r"model-[0-9a-f]{6}", slug_of("鳥", "1"))


def test_one_model_in_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a", "ks", words(1), ["accuracy"], ACCURACY)
    write(tmp_path / "b", "ks", words(1), ["accuracy"], ACCURACY)
    write(tmp_path / "b", "pr", PHONES, ["per"], PER)
    out = site(tmp_path, tmp_path / "a", tmp_path / "b")
    assert len(list((out / "models").iterdir())) == 1
    write(tmp_path / "c", "ks", words(2), ["accuracy"], ACCURACY)
    command = ["leaderboard", str(tmp_path / "a"), str(tmp_path / "c"), "--out", str(out)]
    before = contents(out)
    assert cli.main(command) == 2
    assert "say different things: leave one out" in capsys.readouterr().err
    assert contents(out) == before


def test_predictions_that_are_gone_cost_the_aggregates_only(tmp_path: Path) -> None:
    path = write(tmp_path / "r", "ks", words(1), ["accuracy"], ACCURACY)
    path.with_suffix(".tsv").unlink()
    index = (site(tmp_path, tmp_path / "r") / "index.html").read_text()
    assert "no superb_s or superb_r: " in index
    assert "80.0" in index


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    folder = make(tmp_path / "r")
    assert cli.main(["leaderboard", str(folder), "--out", str(tmp_path / "mine")]) != 0
    assert "no leaderboard of ours" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.tex").exists()
    assert cli.main(["leaderboard", str(tmp_path / "none"), "--out", str(tmp_path / "s")]) != 0
    assert "no results folder" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
