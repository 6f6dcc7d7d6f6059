"""``mynah report``: one page, self-contained, the same bytes for the same results."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "doubles"))
from resulting import PER, PHONES, write

from mynah.recipes import kept, results
from mynah.recipes.cli import main as cli
from mynah.recipes.reporting import embeddings, figures, page, project, tabulated
from mynah.recipes.reporting.groups import Files

CLASSES = ("down", "left <b>", "$x$", "stop")
HOSTILE = "<script>alert(1)</script>"


def result(
    upstream: str, *, task: str = "ks", seed: int = 0, folds: int = 1, **more: object
) -> results.Result:
    rng = np.random.default_rng(len(upstream) + seed)
    value = float(rng.uniform(0.3, 0.7))
    rates = (1e-4, 1e-3, 1e-2)
    names = [""] if folds == 1 else [f"f{i}" for i in range(folds)]
    fields: dict = {
        "upstream": upstream, "spec": upstream, "fingerprint": "f" * 64, "upstream_params": 1234,
        "task": task, "task_version": 1, "protocol": "fixed", "corpus": "mini",
        "corpus_version": "c" * 64, "seed": seed, "metric": "accuracy", "higher_is_better": True,
        "metrics": {
            "accuracy": {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 60,
                         "units": 5, "unit": "speaker", "signature": "acc|v1"}
        },
        "classes": CLASSES, "confusion": [[9, 5, 0, 1], [0, 15, 0, 0], [0, 0, 15, 0], [2, 0, 0, 13]],
        "choices": [{"fold": f, "learning_rate": 1e-3, "step": 20, "dev": 0.6} for f in names],
        "sweep": [
            {"fold": f, "learning_rate": lr, "step": step, "dev": float(rng.uniform()),
             "train_loss": None if lr == 1e-2 and step == 30 else 2.0 / step}
            for f in names for lr in rates for step in (10, 20, 30)
        ],
        "layer_weights": [0.2, 0.5, 0.3], "n_train": 5, "n_dev": 5, "n_test": 60, "head_params": 3,
        "steps": 30, "passes": 1.0, "features": "pooled", "forwards": 20,
        "costs": {"extract": {"cpu": 0.5, "wall": 1.0}, "train": {"cpu": 123.0, "wall": 9.0}},
        "environment": {"torch": "2.11.0", "threads": "1"},
        "command": f"mynah probe {upstream} {task} --corpus 'a <dir>'", "predictions": "",
    }  # fmt: skip
    return results.Result.model_validate({**fields, **more})


def keep(folder: Path, one: results.Result) -> results.Result:
    """Save a result with predictions, means and norms, as a probe does."""
    path = results.path_of(
        folder, upstream=one.upstream, task=one.task, protocol=one.protocol, corpus=one.corpus, seed=one.seed
    ).with_suffix(".npz")  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    names = [CLASSES[i % 4] for i in range(60)]
    means = rng.standard_normal((60, 8)) + 4 * np.eye(8)[[i % 4 for i in range(60)]]
    ids = [f"u{i}" for i in range(60)]
    np.savez(path, ids=np.array(ids), means=means.astype(np.float32), norms=[4.0, 1.0, 1.0])
    said = ["stop" if i in (0, 7) else n for i, n in enumerate(names)]
    rows = [
        f"{i}\t\tspk{k % 5}\t{n}\t{s}\n"
        for k, (i, n, s) in enumerate(zip(ids, names, said, strict=True))
    ]
    path.with_suffix(".tsv").write_text("id\tfold\tunit\treference\tprediction\n" + "".join(rows))
    made = one.model_copy(
        update={"embeddings": path.name, "predictions": path.with_suffix(".tsv").name}
    )
    results.save(made, folder)
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    keep(folder, result("apc-tiny"))
    results.save(result("apc-tiny", seed=1), folder)
    results.save(result("fbank", layer_weights=[1.0], upstream_params=9), folder)
    results.save(result("apc-tiny", task="er", folds=3), folder)
    write(folder, "pr", PHONES, ["per"], PER, upstream=HOSTILE)
    return folder


class Outline(HTMLParser):
    VOID = frozenset({"meta", "link", "br", "img", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    assert cli(["report", str(folder)]) == 0
    return (folder / "report.html").read_text()


def test_the_page_is_whole_and_needs_nothing(text: str) -> None:
    outline = Outline()
    outline.feed(text)
    assert outline.open == []
    assert {tag for tag, _ in outline.tags} & {"link", "iframe", "object", "audio"} == set()
    anchors = {a["id"] for _, a in outline.tags if "id" in a}
    for tag, attributes in outline.tags:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.removeprefix("#") in anchors, (tag, target)
    assert "url(" not in text
    assert "@import" not in text


def test_the_only_script_is_the_one_that_the_policy_allows(text: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "media-src" not in policy
    assert text.count("<script") == 1
    assert not re.search(r"\son\w+=", re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL))


def test_the_same_results_give_the_same_bytes(folder: Path, text: str, tmp_path: Path) -> None:
    assert cli(["report", str(folder), "--out", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_text() == text


def test_what_was_measured_is_there(text: str) -> None:
    one, two = result("apc-tiny"), result("apc-tiny", seed=1)
    mean = 50 * (one.main.value + two.main.value)
    assert re.search(rf">{mean:.1f} <small>\[.*?\(2 seeds\) #\d</small>", text)
    assert "er on mini (fixed)" in text
    assert "mean over 3 folds" in text
    assert "down taken for left &lt;b&gt; (5×)" in text
    assert "acc|v1" in text
    assert "mynah probe fbank ks --corpus &#39;a &lt;dir&gt;&#39;" in text
    assert re.search(r"<tr><th scope=\"row\">apc-tiny</th><td>ks</td>.*?<td>123</td></tr>", text)


def test_names_cannot_become_markup(text: str) -> None:
    assert "&lt;script&gt;alert(1)" in text
    assert HOSTILE not in text
    assert "left <b>" not in text


def test_pictures_speak_and_tables_have_headers(text: str) -> None:
    outline = Outline()
    outline.feed(text)
    drawn = [a for tag, a in outline.tags if tag == "svg" and a.get("aria-hidden") != "true"]
    assert len(drawn) > 12
    assert all(a.get("role") == "img" and len(a.get("aria-label") or "") > 20 for a in drawn)
    tables = text.count("<table")
    assert text.count("<caption>") == tables
    assert text.count('scope="col"') >= 2 * tables
    assert 'name="viewport"' in text
    assert "screen and (prefers-color-scheme: dark)" in text
    assert "@media print" in text


def test_means_are_projected_and_their_neighbours_counted(text: str) -> None:
    assert "PCA and t-SNE of 60 test utterance means, coloured by label (4)" in text
    assert "t-SNE (perplexity 19)" in text
    assert "coloured by speaker (5)" in text
    same = re.search(r"the same label for (\d+) % \(chance 24 %\)", text)
    assert same is not None
    assert int(same.group(1)) > 80


def test_places_and_sizes_stand_beside_the_scores() -> None:
    made = tabulated.scores([result("a"), result("bb"), result("a", task="er")])
    assert [h["title"] for h in made["head"][:3]] == ["mean place", "parameters", "MAC/s of audio"]
    better = max(("a", "bb"), key=lambda n: result(n).main.value)
    cells = dict(made["rows"])
    assert cells[better][4].more.endswith("#1")
    assert cells[better][4].best
    assert cells["bb"][3].text == "–"  # no result on er
    assert cells["a"][0].more == "(2 scores)"
    assert cells["bb"][2].sort == ""  # not counted


def test_neighbours_tell_clusters_from_noise() -> None:
    rng = np.random.default_rng(0)
    labels = ["a", "b", "c", "d"] * 25
    noise = rng.standard_normal((100, 6))
    same, chance = project.neighbours(noise, labels)
    assert chance == pytest.approx(24 / 99)
    assert abs(same - chance) < 0.2
    noise[:, 0] += 20 * np.array([0, 1, 2, 3] * 25)
    noise[:, 5] = 7.0  # a constant dimension says nothing and breaks nothing
    assert project.neighbours(noise, labels)[0] > 0.7
    made = project.project(noise)
    assert made.pca_N2.shape == (100, 2)
    assert made.tsne_N2 is not None
    flat = project.project(np.ones((6, 4)))
    assert flat.tsne_N2 is None
    assert not flat.pca_N2.any()


def test_warnings_come_first() -> None:
    edge = [{"learning_rate": 1e-2, "step": 20, "dev": 0.6}]
    said = tabulated.warnings(
        [
            result("a", skipped={"u1": "no label"}),
            result("b", corpus_version="d"),
            result("c", choices=edge),
            result("d", environment={"torch": "2.12.0", "threads": "1"}),
        ]
    )
    assert any("left out" in s and "a/ks (1)" in s for s in said)
    assert any("mixes 2 sets of versions or settings" in s for s in said)
    assert any("at the edge of the grid" in s and s.endswith("c (1e-2).") for s in said)
    assert any("environments (torch)" in s for s in said)
    layers = [result("a", settings={"layer": str(k)}) for k in range(3)]
    assert tabulated.warnings([result("a"), result("b"), *layers]) == []


def test_embeddings_that_do_not_fit_are_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = keep(tmp_path, result("apc"))
    means = tmp_path / "apc" / str(one.embeddings)
    tsv = means.with_suffix(".tsv")
    assert embeddings.load(means, tsv).labels[2] == "$x$"
    assert embeddings.norms(means) == pytest.approx([4, 1, 1])
    whole = means.read_bytes()
    for damaged in (whole[:100], b"", b"not a zip"):
        means.write_bytes(damaged)
        with pytest.raises(ValueError, match="--rerun always"):
            embeddings.load(means, tsv)
        with pytest.raises(ValueError, match="--rerun always"):
            embeddings.norms(means)
    np.savez(means, ids=np.array(["nobody"]), means=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="nobody"):
        embeddings.load(means, tsv)
    assert embeddings.norms(means) is None
    np.savez(means, ids=np.array([{"a": 1}], dtype=object), means=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="pickle"):
        embeddings.load(means, tsv)
    means.unlink()
    (entry,) = kept.pairs(tmp_path)
    assert page.embedded(Files([entry]), entry[1], points=100) == []
    assert means.name in caplog.text


def test_usage_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["report", str(tmp_path)]) == 2
    assert "holds no results" in capsys.readouterr().err
    results.save(result("apc"), tmp_path)
    for wrong, said in (
        (["--store", str(tmp_path / "none")], "no feature store"),
        (["--points", "1"], "--points must be at least 3"),
        (["--audio", "-1"], "--audio must be 0 or more"),
        (["--corpus", str(tmp_path)], "give --audio N"),
        (["--audio", "1", "--corpus", str(tmp_path)], "mynah prepare"),
    ):
        assert cli(["report", str(tmp_path), *wrong]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_results_may_lie_deeper_than_the_folder(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "all" / "results")
    assert cli(["report", str(tmp_path / "all"), "--out", str(tmp_path / "deep.html")]) == 0
    assert "test utterance means" in (tmp_path / "deep.html").read_text()


def test_rates_and_names_are_short() -> None:
    assert [figures.rate(x) for x in (1e-3, 0.1, 5e-05, 0.00025, 1.0)] == [
        "1e-3", "1e-1", "5e-5", "0.00025", "1e0",
    ]  # fmt: skip
    assert figures.short("a" * 30 + "z", 12) == "aaaaaa…aaaaz"
