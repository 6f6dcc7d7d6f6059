"""``mynah score``, ``compare`` and ``table --with-published`` on results with their predictions."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "doubles"))
from resulting import ACCURACY, PER, PHONES, perfect, words, write
from tones import write_tones

from mynah.recipes import aggregate, cli, compare, kept, paired, probe, results
from mynah.recipes.probing.settings import Settings
from mynah.recipes.published import rows as published
from mynah.tasks.metrics.metric import Floats, Weigh


def ks(folder: Path, wrong: int, **more: Any) -> Path:
    return write(folder, "ks", words(wrong), ["accuracy"], ACCURACY, **more)


def test_predictions_give_the_value_and_any_draw(tmp_path: Path) -> None:
    path = ks(tmp_path, 2)
    result = results.load(path)
    found = kept.scored(path, result)
    assert found.value == pytest.approx(3 / 5)
    assert found.names == tuple(f"s{i}" for i in range(8))
    once = found.weigh(np.ones((1, 8)))
    assert once[0] == pytest.approx(0.6)
    assert kept.read(path, result).chance() == pytest.approx(3 / 5)  # "no", of five words three


def test_units_that_are_too_few_give_way_to_utterances(tmp_path: Path) -> None:
    path = write(tmp_path, "ks", words(1, speakers=3), ["accuracy"], ACCURACY)
    assert len(kept.scored(path, results.load(path)).names) == 15


def test_tasks_on_the_same_speakers_are_drawn_together() -> None:
    assert np.array_equal(kept.draws(("a", "b", "c"), 50), kept.draws(("a", "b", "c"), 50))
    assert not np.array_equal(kept.draws(("a", "b", "c"), 50), kept.draws(("a", "b", "d"), 50))
    assert (kept.draws(("a", "b", "c"), 50).sum(axis=1) == 3).all()


def test_predictions_of_another_run_are_refused(tmp_path: Path) -> None:
    path = ks(tmp_path, 2)
    result = results.load(path)
    table = path.with_suffix(".tsv")
    text = table.read_text()
    table.write_text(text.replace("\t?\n", "\tno\n", 3))
    with pytest.raises(ValueError, match="gives accuracy .* where the result says 0.6"):
        kept.scored(path, result)
    table.write_text(text.replace("unit", "speaker", 1))
    with pytest.raises(ValueError, match="expected the columns id, fold, unit"):
        kept.scored(path, result)
    table.unlink()
    with pytest.raises(FileNotFoundError, match="--rerun always"):
        kept.scored(path, result)
    with pytest.raises(ValueError, match="ks has no metric 'per'; it has: accuracy"):
        kept.measure_of(
            result, "per", kept.Rows(ids=(), folds=(), units=(), references=(), predictions=())
        )


# -- score ------------------------------------------------------------------------------------


def test_a_whole_view_has_a_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    perfect(tmp_path)
    out = tmp_path / "score.json"
    assert cli.main(["score", str(tmp_path), "--out", str(out)]) == 0
    (model,) = json.loads(out.read_text())["models"]
    best = {key: 0.0 if key[1] in ("per", "wer", "eer", "der", "slot_value_cer") else 100.0
            for key in aggregate.REFERENCES}  # fmt: skip
    by_hand = np.mean(
        [
            np.mean([aggregate.point(key, best[key]) for key in keys])
            for keys in aggregate.metrics_of("paper").values()
        ]
    )
    assert model["superb_s"]["value"] == pytest.approx(by_hand)
    assert model["superb_s"]["low"] == pytest.approx(by_hand)  # no draw of speakers errs
    assert model["superb_r"]["value"] == 0.0  # not on SUPERB's corpora, so among none here
    assert model["counted"] == []
    assert model["centred"]["value"] == 1.0
    assert model["missing"] == []
    (remark,) = model["remarks"]
    assert remark.startswith("not SUPERB's corpora, or under other names: asr ")
    text = capsys.readouterr().out
    assert "| HuBERT Large (published) | 919 | 12.80 |" in text
    assert "(value - chance) / (perfect - chance)" in text


def test_what_is_missing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ks(tmp_path, 2)
    write(tmp_path, "pr", PHONES, ["per"], PER)
    out = tmp_path / "score.json"
    assert cli.main(["score", str(tmp_path), "--view", "public", "--out", str(out)]) == 1
    text = capsys.readouterr().out
    assert "not defined" in text
    assert "sid, qbe, asr, asv, er, sd, st, se, ss |" in text
    assert "protocol fixed, not superb" in text
    (model,) = json.loads(out.read_text())["models"]
    # PER 12 / 72 and its chance 100 %; accuracy 60 % where always saying "no" gives 60 %
    assert model["parts"] == pytest.approx({"pr": 1 - 12 / 72, "ks": 0.0})
    assert model["centred"]["value"] == pytest.approx((1 - 12 / 72) / 2)
    assert model["centred"]["low"] < model["centred"]["value"] < model["centred"]["high"]
    assert model["superb_s"] is None


def test_intervals_cover_speakers_and_seeds(tmp_path: Path) -> None:
    for seed, wrong in enumerate((1, 3)):
        ks(tmp_path, wrong, seed=seed)
    models = _chosen(tmp_path)
    values, draws, chances = _drawn(models["apc", "fixed"])
    assert values["ks", "accuracy"] == pytest.approx(60.0)
    # every speaker errs alike, so all that varies is which of two seeds are drawn: 80, 60 or 40
    assert set(draws["ks", "accuracy"].round(6)) == {80.0, 60.0, 40.0}
    assert chances == {"ks": pytest.approx(60.0)}


def _chosen(folder: Path, **more: Any) -> Any:
    from mynah.recipes.score import chosen

    return chosen(kept.pairs(folder), **{"protocol": None, "corpus": (), **more})


def _drawn(of_task: Any) -> Any:
    from mynah.recipes.score import drawn

    return drawn(of_task)


def test_which_results_count(tmp_path: Path) -> None:
    ks(tmp_path, 1, settings={"heads": "small"})
    ks(tmp_path, 2, settings={})
    ks(tmp_path, 2, protocol="superb", settings={})
    write(tmp_path, "asr", PHONES, ["wer"], {"wer": "wer|norm:upper|unit:word|lm:x|v1"},
          settings={"lm": "x"})  # fmt: skip
    models = _chosen(tmp_path)
    assert set(models) == {("apc", "fixed"), ("apc", "superb")}
    ((_, result),) = models["apc", "fixed"]["ks"]  # the protocol's head, not the small one
    assert result.settings == {}
    assert "asr" not in models["apc", "fixed"]  # with a language model it is another number
    ks(tmp_path, 2, corpus="other", settings={})
    with pytest.raises(ValueError, match="ks of apc has results on mini, other: .*--corpus"):
        _chosen(tmp_path)
    assert _chosen(tmp_path, corpus=("other",))["apc", "fixed"]["ks"][0][1].corpus == "other"
    with pytest.raises(ValueError, match="no result of a task that counts, protocol nope"):
        _chosen(tmp_path, protocol="nope")


# -- published rows ---------------------------------------------------------------------------


def test_every_published_number_has_a_source_and_a_standing() -> None:
    assert {s.source for s in published.scores()} <= published.SOURCES.keys()
    assert {m.source for m in published.models()} <= published.SOURCES.keys()
    models = [m.model for m in published.models()]
    assert len(set(models)) == len(models)
    assert {s.model for s in published.scores()} == set(models)
    keys = [(s.model, s.task, s.metric) for s in published.scores()]
    assert len(set(keys)) == len(keys)
    standing = {s.task: s.standing for s in published.scores() if s.model == "FBANK"}
    assert standing["pr"] == "verified"
    assert standing["vc"] == "recalled"
    wavlm = {s.task: s.standing for s in published.scores() if s.model == "WavLM Base"}
    assert (wavlm["pr"], wavlm["asr"]) == ("verified", "recalled")


@pytest.mark.parametrize("form", ["markdown", "csv", "json", "terminal"])
def test_published_rows_stand_beside_ones_own(
    tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ks(tmp_path, 2, settings={"heads": "small"})
    assert cli.main(["table", str(tmp_path), "--format", form, "--with-published"]) == 0
    text = capsys.readouterr().out
    if form == "markdown":
        assert "| HuBERT Base (published) | 96.30 |" in text
        assert "| WavLM Base (published) | 96.79 † |" in text
        assert "| USAD Base (published) | 97.1 ≈ |" in text
        assert "| apc | **60.0 [60.0, 60.0]** |" in text  # the best of one's own stays bold
        assert "arXiv:2110.13900" in text
    elif form == "terminal":
        assert "HuBERT Base (published)" in text
    else:
        found = json.loads(text) if form == "json" else list(csv.DictReader(text.splitlines()))
        hubert = next(r for r in found if r["upstream"] == "HuBERT Base")
        assert float(hubert["value"]) == pytest.approx(0.963)
        assert (hubert["published"], hubert["standing"]) == ("leaderboard", "verified")
        assert not found[0]["published"]


def test_without_the_flag_the_table_is_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ks(tmp_path, 2)
    assert cli.main(["table", str(tmp_path), "--format", "json"]) == 0
    assert "published" not in json.loads(capsys.readouterr().out)[0]


# -- compare ----------------------------------------------------------------------------------


def test_a_difference_on_every_speaker_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ks(tmp_path, 1, upstream="good")
    ks(tmp_path, 3, upstream="bad")
    out = tmp_path / "compared.json"
    command = ["compare", "good", "bad", "--results", str(tmp_path), "--out", str(out)]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert "| ks, mini | accuracy↑ | 80.0 [80.0, 80.0] | 40.0 [40.0, 40.0] | +40.0 " in text
    assert "| first |" in text
    (row,) = json.loads(out.read_text())["tested"]
    assert row["found"]["p"] == row["corrected"] == pytest.approx(1 / 2001)
    assert cli.main(["compare", str(tmp_path / "bad"), str(tmp_path / "good")]) == 0
    assert "| second |" in capsys.readouterr().out


def test_a_model_is_no_better_than_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ks(tmp_path, 1)
    assert cli.main(["compare", str(tmp_path), str(tmp_path)]) == 0
    assert "| 1.0000 | 1.0000 | – |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"protocol": "superb"}, "another protocol: fixed against superb"),
        ({"task_version": 99}, r"another version of the task: \d+ against 99"),
        ({"corpus_version": "fedcba9876543210"}, "another test set .*: 0123.* against fedc"),
        ({"settings": {"steps": "9"}}, "another settings: steps=5 against steps=9"),
        ({"corpus": "other"}, "only the first has it"),
    ],
)
def test_what_is_not_scored_alike_is_refused(
    tmp_path: Path, other: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ks(tmp_path, 1, upstream="a")
    ks(tmp_path, 3, upstream="b", **other)
    assert cli.main(["compare", "a", "b", "--results", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert "Not compared:" in text
    import re

    assert re.search(reason, text)


def test_other_utterances_are_refused(tmp_path: Path) -> None:
    ks(tmp_path, 1, upstream="a")
    write(tmp_path, "ks", words(1, each=4), ["accuracy"], ACCURACY, upstream="b")
    sides = (compare.side_of(name, tmp_path) for name in ("a", "b"))
    tested, refused = compare.compare(*sides)
    assert tested == []
    assert "different utterances" in refused[0].reason


def test_who_is_compared_must_be_clear(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ks(tmp_path, 1, upstream="a")
    ks(tmp_path, 3, upstream="b")
    assert cli.main(["compare", str(tmp_path), str(tmp_path / "a")]) == 2
    assert "results of 2 models: a, b" in capsys.readouterr().err
    assert cli.main(["compare", "a", "c", "--results", str(tmp_path)]) == 2
    assert "unknown model" in capsys.readouterr().err
    assert cli.main(["compare", "nowhere", "a"]) == 2
    assert cli.main(["compare", "a", "b", "--results", str(tmp_path), "--level", "5"]) == 2
    assert "level must be between 0 and 1" in capsys.readouterr().err


def test_holm_is_monotone_and_at_most_one() -> None:
    assert compare.holm([0.5, 0.9, 0.01]) == pytest.approx([1.0, 1.0, 0.03])
    assert compare.holm([]) == []


def test_where_there_is_no_difference_p_is_small_as_often_as_it_says() -> None:
    """200 pairs of equally good models on 25 speakers: 5 % of the tests fall below 0.05."""
    stream = np.random.default_rng(0)

    def side(right_U: Floats) -> paired.Side:
        def weigh(drawn_DU: Floats) -> Floats:
            found: Floats = drawn_DU @ right_U / (10 * drawn_DU.sum(axis=1))
            return found

        weighs: tuple[Weigh, ...] = (weigh,)
        return paired.Side(
            values=(float(right_U.sum()) / 250,), weighs=weighs, unit="speaker",
            names=tuple(map(str, range(25))), signature="s", higher_is_better=True,
        )  # fmt: skip

    skill_GU = stream.beta(4, 4, size=(200, 25))
    found = [
        paired.compare(
            side(stream.binomial(10, skill_U).astype(float)),
            side(stream.binomial(10, skill_U).astype(float)),
            draws=400,
        ).p
        for skill_U in skill_GU
    ]
    below = np.mean(np.array(found) < 0.05)
    assert 0.02 <= below <= 0.11  # 5 %, give or take three standard errors and few speakers


# -- real results -----------------------------------------------------------------------------


def test_a_probe_carries_the_cost_and_can_be_scored(tmp_path: Path) -> None:
    corpus = write_tones(tmp_path / "tones").folder
    out = tmp_path / "out"
    fast = Settings(steps=20, learning_rates=(1e-2,))
    for spec in ("fbank", "apc/tiny"):
        probe.run(spec, "ks", corpus, out, settings=fast)
        (pr,) = probe.run(spec, "pr", corpus, out, settings=fast)
    assert pr.upstream_macs_total == sum(pr.upstream_macs_buckets.values())
    assert set(pr.upstream_macs_buckets) == {"short", "medium", "long", "longer"}
    assert pr.upstream_stride_ms == 20.0
    assert pr.upstream_macs == round((pr.upstream_macs_total or 0) / 224.86)
    assert cli.main(["score", str(out)]) == 1
    names = sorted(p.name for p in out.iterdir() if p.is_dir() and p.name != "features")
    assert cli.main(["compare", *names, "--results", str(out), "--draws", "200"]) == 0
