"""``mynah export results``: each form is read back by what it is for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

sys.path.append(str(Path(__file__).parent / "doubles"))
from resulting import ACCURACY, PER, PHONES, words, write

from mynah.recipes import cli, export_results, results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "results"
    write(where, "ks", words(1), ["accuracy"], ACCURACY)
    write(where, "ks", words(2), ["accuracy"], ACCURACY, seed=1)
    write(where, "pr", PHONES, ["per"], PER)
    return where


def exported(folder: Path, form: str, *more: str) -> str:
    out = folder.parent / f"x.{form}"
    assert cli.main(["export", "results", str(folder), "--as", form, "--out", str(out), *more]) == 0
    return out.read_text(encoding="utf-8")


def test_lm_eval(folder: Path) -> None:
    page = json.loads(exported(folder, "lm-eval"))
    row = page["results"]["ks_mini_fixed"]
    low, high = (
        sum(getattr(r.main, end) for r in results.load_all(folder) if r.task == "ks") / 2
        for end in ("low", "high")
    )
    assert row["accuracy,none"] == pytest.approx((0.8 + 0.6) / 2)
    assert row["accuracy_stderr,none"] == pytest.approx((high - low) / 3.919928)
    assert page["higher_is_better"] == {
        "ks_mini_fixed": {"accuracy": True},
        "pr_mini_fixed": {"per": False},
    }
    assert page["n-samples"]["ks_mini_fixed"] == {"original": 40, "effective": 40}
    assert page["configs"]["ks_mini_fixed"]["seeds"] == [0, 1]
    assert page["config"]["model_num_parameters"] == 10


def test_samples_are_what_was_scored(tmp_path: Path) -> None:
    skipped = {"a": "of train", "b": "of test"}  # which n_test does not count
    where = tmp_path / "results"
    write(where, "ks", words(1), ["accuracy"], ACCURACY, skipped=skipped)
    page = json.loads(exported(where, "lm-eval"))
    assert page["n-samples"]["ks_mini_fixed"] == {"original": 40, "effective": 40}


def test_model_index_is_read_by_its_library(folder: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    text = exported(folder, "model-index")
    card = hub.ModelCard(text + "# apc\n", ignore_metadata_errors=False)
    found = {e.dataset_name + e.metric_type: e for e in card.data.eval_results}
    assert card.data.model_name == "apc"
    assert found["miniaccuracy"].metric_value == pytest.approx(70.0)
    assert found["miniaccuracy"].task_type == "audio-classification"
    assert "95 % interval" in found["miniper"].metric_name
    assert yaml.safe_load(text.split("---")[1])["library_name"] == "mynah"


def test_latex_says_what_the_table_says(folder: Path) -> None:
    write(folder, "ks", words(0), ["accuracy"], ACCURACY, upstream="wav_2&vec")
    text = exported(folder, "latex")
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.count(" & ") for line in lines}) == 1
    assert r"ks mini accuracy fixed $\uparrow$" in text
    assert r"wav\_2\&vec & \textbf{100.0 [100.0, 100.0]} & -- \\" in text
    assert r"apc & 70.0 " in text
    assert text.count("{tabular}") == 2
    assert export_results.escaped("a_b%c\\d^e~f") == (
        r"a\_b\%c\textbackslash{}d\textasciicircum{}e\textasciitilde{}f"
    )


def test_markdown_is_the_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = exported(folder, "markdown")
    capsys.readouterr()
    assert cli.main(["table", str(folder), "--format", "markdown"]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("form", ["lm-eval", "model-index"])
def test_what_differs_in_more_than_seed_has_no_mean(
    folder: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"steps": "9", "heads": "protocol"}
    write(folder, "ks", words(3), ["accuracy"], ACCURACY, seed=2, settings=settings)
    assert cli.main(["export", "results", str(folder), "--as", form]) == 2
    said = capsys.readouterr().err
    assert "ks_mini_fixed differ in steps (5 | 9); heads (none | protocol): they have" in said
    assert "% Warning: versions of task or corpus, or settings" in exported(folder, "latex")


def test_refusals(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder, "ks", words(0), ["accuracy"], ACCURACY, upstream="cpc")
    assert cli.main(["export", "results", str(folder), "--as", "lm-eval"]) == 2
    assert "choose with --upstream: apc, cpc" in capsys.readouterr().err
    assert cli.main(["export", "results", str(folder), "--as", "lm-eval", "--upstream", "cpc"]) == 0
    assert '"model_name": "cpc"' in capsys.readouterr().out
    assert (
        cli.main(["export", "results", str(folder), "--as", "latex", "--protocol", "superb"]) == 2
    )
    assert "there are: apc (fixed), cpc (fixed)" in capsys.readouterr().err
