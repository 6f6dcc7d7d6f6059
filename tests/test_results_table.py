"""Result files and the table over them."""

import json
from pathlib import Path

import pytest

from mynah.recipes import cli, results, table


def result(
    upstream: str = "apc", seed: int = 0, value: float = 0.5, **more: object
) -> results.Result:
    fields: dict = {
        "upstream": upstream, "spec": upstream, "fingerprint": "f", "upstream_params": 10,
        "task": "ks", "task_version": 1, "protocol": "fixed", "corpus": "mini",
        "corpus_version": "c", "seed": seed, "metric": "acc", "higher_is_better": True,
        "metrics": {
            "acc": {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 10, "units": 5,
                    "unit": "speaker", "signature": "acc|v1"}
        },
        "choices": [{"learning_rate": 0.1, "step": 5, "dev": 0.6}],
        "sweep": [{"learning_rate": 0.1, "step": 5, "train_loss": 1.0, "dev": 0.6}],
        "layer_weights": [1.0], "n_train": 5, "n_dev": 5, "n_test": 10, "head_params": 3,
        "steps": 5, "passes": 1.0, "features": "pooled", "forwards": 20,
        "costs": {"train": {"cpu": 1.0, "wall": 1.0}}, "environment": {}, "command": "x",
        "predictions": "p.tsv",
    }  # fmt: skip
    return results.Result.model_validate({**fields, **more})


def test_round_trip(tmp_path: Path) -> None:
    one = result()
    path = results.save(one, tmp_path)
    assert path == tmp_path / "apc" / "ks-fixed-mini-seed0.json"
    assert results.load(path) == one
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file stays


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        result(value=float("nan"))


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = results.save(result(), tmp_path)
    data = json.loads(path.read_text())
    data["layer_wieghts"] = data.pop("layer_weights")
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="seed0.json is not a result .2 problems.*layer_wieghts"):
        results.load_all(tmp_path)
    path.write_text(path.read_text()[:50])
    with pytest.raises(ValueError, match="not a result"):
        results.load_all(tmp_path)


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = results.save(result(), tmp_path)
    before = path.read_bytes()

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        results.save(result(value=0.7), tmp_path)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


def test_names_cannot_leave_the_folder(tmp_path: Path) -> None:
    path = results.save(result(upstream="../../evil"), tmp_path)
    assert tmp_path in path.resolve().parents


def test_seeds_become_one_cell_and_the_best_is_bold(tmp_path: Path) -> None:
    rows = [result("apc", 0, 0.4), result("apc", 1, 0.6), result("fbank", 0, 0.3)]
    made = table.collect(rows)
    assert made.rows["apc"][0].value == pytest.approx(0.5)
    assert made.rows["apc"][0].spread == pytest.approx(0.1414, abs=1e-4)
    text = table.markdown(made)
    assert "| apc | **50.0 [40.0, 60.0] ±14.1 (2 seeds)** |" in text
    assert "| fbank | 30.0 [20.0, 40.0] |" in text


def test_skipped_and_mixed_versions_are_told() -> None:
    made = table.collect([result(skipped={"u1": "nan"}), result("fbank", task_version=2)])
    assert "(1 skipped)" in table.markdown(made)
    assert "Warning: versions of task or corpus, or settings" in table.markdown(made)
    other = table.collect(
        [result(settings={"steps": "9"}), result("fbank", settings={"steps": "8"})]
    )
    assert "Do not compare" in table.markdown(other)


@pytest.mark.parametrize("form", ["terminal", "markdown", "csv", "json"])
def test_formats(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    results.save(result(), tmp_path)
    assert cli.main(["table", str(tmp_path), "--format", form]) == 0
    out = capsys.readouterr().out
    if form == "json":
        assert json.loads(out)[0]["value"] == 0.5
    elif form == "csv":
        assert out.splitlines()[1].startswith("apc,ks,mini,fixed,acc,True,0.5,")
    else:
        assert "50.0 [40.0, 60.0]" in out


def test_unknown_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results.save(result(), tmp_path)
    assert cli.main(["table", str(tmp_path), "--protocol", "superb"]) == 2
    assert "there are: fixed" in capsys.readouterr().err


def test_what_makes_another_number_has_a_name_and_a_file_of_its_own(tmp_path: Path) -> None:
    plain = result()
    normed = result(settings={"heads": "small", "layer_norm": "true", "splits": "made"})
    assert (plain.label, normed.label) == ("ks", "ks (small head, layer norm, made splits)")
    saved = [results.save(r, tmp_path) for r in (plain, normed)]
    assert saved[1].name == saved[0].name.replace("ks-", "ks-small-norm-made-", 1)
    assert len(table.collect(results.load_all(tmp_path)).columns) == 2
