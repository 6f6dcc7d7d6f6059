"""The report's pictures and error tables: that they show the numbers, and show them right."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent / "doubles"))
from resulting import ACCURACY, PER, PHONES, Table, perfect, words, write

from mynah.recipes import cli, kept, results
from mynah.recipes.reporting import (
    comparing,
    detection,
    figures,
    layering,
    matrix,
    plot,
    svg,
    wrong,
)
from mynah.recipes.reporting.groups import Files, by_layer, first_seeds, last_steps, rows

EER = {"eer": "eer|curve:linear|ties:together|v1"}


def files(folder: Path) -> Files:
    return Files(kept.pairs(folder))


def places(svg: str, kind: str = "use") -> list[tuple[float, float]]:
    """Return where symbols stand."""
    found = re.findall(rf'<{kind} [^>]*?x="([-\d.]+)" y="([-\d.]+)"', svg)
    return [(float(x), float(y)) for x, y in found]


def track(d: str) -> list[tuple[float, float]]:
    """Return the points of a path of relative lines."""
    numbers = [float(n) for n in re.findall(r"-?\d+(?:\.\d)?", d)]
    steps = np.array(numbers).reshape(-1, 2).cumsum(0)
    return [(float(x), float(y)) for x, y in steps]


def test_paths_do_not_drift() -> None:
    points = [(i / 3, (i * 7 % 11) / 7) for i in range(200)]
    drawn = track(plot.track(points))
    assert np.abs(np.array(drawn) - points).max() <= 0.051
    whole = track(plot.track(points, digits=0))
    assert np.abs(np.array(whole) - points).max() <= 0.501


def test_axes_hold_all_values_and_have_round_ticks() -> None:
    axis = plot.linear("x", [53.2, 86.6])
    assert [label for _, label in axis.ticks] == ["60", "70", "80"]
    assert 0 < axis(53.2) < axis(86.6) < 1
    assert plot.linear("x", [3.0])(3.0) == pytest.approx(0.5)
    logs = plot.logarithmic("x", [1e6, 3e8])
    assert logs(1e7) - logs(1e6) == pytest.approx(logs(1e8) - logs(1e7))
    assert "10M" in [label for _, label in logs.ticks]
    with pytest.raises(ValueError, match="positive"):
        plot.logarithmic("x", [0.0, 1.0])
    normal = plot.probit("x", 0.01, 0.5)
    assert normal(0.5) == 1
    assert normal(0.0) == 0  # outside: on the edge
    assert [t for t, _ in plot.whole("layer", range(13)).ticks] == [0, 2, 4, 6, 8, 10, 12]


def test_things_are_told_apart_without_colour() -> None:
    marks = {(plot.mark(i).partition(" ")[2], plot.shape(i, 0, 0)[-30:]) for i in range(5)}
    assert len(marks) == 5
    assert len({(plot.mark(i), plot.shape(i, 0, 0)) for i in range(40)}) >= 20


def test_matplotlib_pictures_take_the_colours_of_the_page() -> None:
    def paint(_: Any, axes: Any) -> None:
        axes.plot([1, 2], [3.14159, 4], color=svg.colour(0, 1))

    drawn = svg.draw(paint, alt='a < "b"', width=2, height=1)
    assert drawn == svg.draw(paint, alt='a < "b"', width=2, height=1)
    assert svg.INK not in drawn
    assert "currentColor" in drawn
    assert 'aria-label="a &lt; &quot;b&quot;"' in drawn
    assert len({svg.colour(i, 60) for i in range(60)}) == 60


def test_every_point_of_a_scatter_is_drawn() -> None:
    points = np.random.default_rng(0).standard_normal((50, 2))
    drawn, legend = figures.scatter(
        [(points, "PCA"), (points, "t-SNE")], ["a", "b"] * 25, alt="fifty points"
    )
    assert drawn.count("h0") == 100
    assert [name for _, name in legend] == ["a", "b"]
    many, legend = figures.scatter([(points, "PCA")], [str(i) for i in range(50)], alt="all alone")
    assert legend == ()
    assert len(set(re.findall(r'stroke="(#\w{6})"', many))) == 50


def test_the_confusion_matrix_shades_shares_and_drops_empty_cells(tmp_path: Path) -> None:
    write(tmp_path, "ks", words(2), ["accuracy"], ACCURACY, classes=["yes", "no"],
          confusion=[[6, 2], [0, 8]])  # fmt: skip
    (one,) = files(tmp_path).results
    picture = matrix.confusion(one)
    assert picture is not None
    assert re.findall(r'opacity:([\d.]+)" d="([^"]*)"', picture.svg) == [
        ("0.2", "M1 0h1"), ("0.6", "M0 0h1"), ("0.8", "M1 1h1"),
    ]  # fmt: skip
    assert "yes taken for no (2×)" in picture.caption
    assert ">6</text>" in picture.svg
    n = 40
    count = np.eye(n, dtype=int)
    count[30, 31] = 5
    names = [f"class{i}" for i in range(n)]
    large = matrix.confusion(one.model_copy(update={"classes": names, "confusion": count.tolist()}))
    assert large is not None
    assert "Of 40 classes the 20 with the most errors" in large.caption
    assert "class30" in large.svg


def test_weights_are_corrected_by_norms(tmp_path: Path) -> None:
    path = write(tmp_path, "ks", words(1), ["accuracy"], ACCURACY, layer_weights=[0.2, 0.5, 0.3],
                 embeddings="means.npz")  # fmt: skip
    np.savez(path.with_name("means.npz"), norms=[10.0, 1.0, 1.0])
    found = files(tmp_path)
    raw, corrected = layering.weights(found, found.results, {"apc": 0})
    assert "most (50 %) on layer 1" in raw.svg
    assert "most (71 %) on layer 0" in corrected.svg  # 2 of 2 + 0.5 + 0.3
    normed = results.load(path).model_copy(update={"settings": {"layer_norm": "true"}})
    path.unlink()
    results.save(normed, tmp_path)
    again = files(tmp_path)
    assert len(layering.weights(again, again.results, {"apc": 0})) == 1


def layered(folder: Path, **more: Any) -> None:
    for layer in range(3):
        write(folder, "ks", words(3 - layer), ["accuracy"], ACCURACY,
              settings={"steps": "5", "layer": str(layer)}, **more)  # fmt: skip


def test_hidden_states_have_a_curve_and_no_rows_beside_the_sum(tmp_path: Path) -> None:
    layered(tmp_path)
    write(tmp_path, "ks", words(1), ["accuracy"], ACCURACY)
    found = files(tmp_path).results
    assert [r.layer for r in rows(found)] == [None]
    assert list(by_layer(found)) == ["apc"]
    picture = layering.alone(found, {"apc": 0})
    assert picture is not None
    assert "apc: best 80 at layer 2" in picture.caption
    (x, y) = places(picture.svg)[0]
    (line,) = re.findall(r'<path class="c0" d="([^"]*)"', picture.svg)
    assert track(line)[2] == pytest.approx((x, y))
    assert y == pytest.approx(min(v for _, v in track(line)))  # the best is on top


def test_a_folder_of_single_layers_only_has_rows(tmp_path: Path) -> None:
    layered(tmp_path)
    assert [r.layer for r in rows(files(tmp_path).results)] == [0, 1, 2]
    assert cli.main(["report", str(tmp_path)]) == 0
    assert "apc layer 2" in (tmp_path / "report.html").read_text()


def test_checkpoints_become_a_curve_and_the_last_has_the_pictures(tmp_path: Path) -> None:
    for step, errors in ((0, 3), (100, 2), (200, 1)):
        write(tmp_path, "ks", words(errors), ["accuracy"], ACCURACY, upstream=f"apc-{step}",
              upstream_run="apc@run", upstream_step=step)  # fmt: skip
    write(tmp_path, "ks", words(2), ["accuracy"], ACCURACY, upstream="fbank")
    found = files(tmp_path).results
    assert [r.upstream for r in last_steps(first_seeds(found))] == ["apc-200", "fbank"]
    picture = comparing.by_step(found)
    assert picture is not None
    assert "apc@run: 40 at step 0, 80 at step 200" in picture.caption
    heights = [y for _, y in places(picture.svg)]
    assert heights == sorted(heights, reverse=True)
    assert comparing.by_step([r for r in found if r.upstream == "fbank"]) is None
    assert cli.main(["report", str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "step of pretraining" in text
    assert ">step</th>" in text


def trials(shift: float) -> Table:
    rng = np.random.default_rng(0)
    return [
        (f"s{i % 8}", "target" if i % 2 else "nontarget", f"{rng.normal() + shift * (i % 2):.6f}")
        for i in range(600)
    ]


def test_det_marks_the_equal_error_rate(tmp_path: Path) -> None:
    for name, shift in (("good", 3.0), ("bad", 1.0)):
        write(tmp_path, "asv", trials(shift), ["eer"], EER, upstream=name)
    found = files(tmp_path)
    said = wrong.predictions(found, found.results)
    picture = detection.det(said, {"good": 0, "bad": 1})
    assert picture is not None
    for r in found.results:
        assert f"{r.upstream}: EER {100 * r.main.value:.2f} %" in picture.svg
    bad, good = places(picture.svg)  # in order of upstreams: bad first
    assert good[0] < bad[0]
    assert good[1] > bad[1]
    lines = re.findall(r'<path class="c\d(?: d\d)?" d="(M[^"]*)"', picture.svg)
    assert len(lines) == 2
    for line, mark in zip(lines, (bad, good), strict=True):
        assert min(np.hypot(x - mark[0], y - mark[1]) for x, y in track(line)) < 12
    assert detection.det({}, {}) is None
    hard = wrong.hardest(found.results, said)
    assert hard is not None
    worst = next(
        r for i, r in enumerate(said["bad"].references) if said["bad"].ids[i] == hard.ids[0]
    )
    high = float(hard.rows[0][-2].partition(" ")[0]) > 0.5
    assert high == (worst == "nontarget")


def test_alignments_mark_substitutions_deletions_and_insertions() -> None:
    assert wrong.aligned("the quick brown fox", "a quick fox", "word") == (
        ("S", "the", "a"), ("=", "quick", ""), ("D", "brown", ""), ("=", "fox", ""),
    )  # fmt: skip
    assert wrong.aligned("a b", "a b c", "phone") == (("=", "a b", ""), ("I", "", "c"))
    assert wrong.aligned("a b", "ab", "char")[1] == ("D", "␣", "")
    long = wrong.aligned(" ".join(["a"] * 100), " ".join(["a"] * 99), "word")
    assert long[-1] == ("=", "…", "")


def test_worst_transcripts_come_first(tmp_path: Path) -> None:
    table: Table = [("s1", "A B C D", "A B C D"), ("s2", "A B C D", "X Y C D"), ("s3", "A B", "")]
    write(tmp_path, "pr", table * 4, ["per"], PER)
    found = files(tmp_path)
    (said,) = wrong.predictions(found, found.results).values()
    first, *_, last = wrong.examples(found.results[0], said)
    assert first.name == "u11 (s3): 100 % errors, 0 S, 2 D, 0 I of 2 phones"
    assert last.parts[0] == ("D", "A", "")
    assert all("u0" not in e.name for e in wrong.examples(found.results[0], said))


def test_the_hardest_are_what_most_upstreams_get_wrong(tmp_path: Path) -> None:
    both = words(1)
    one = [(u, r, "?" if i == 2 else p) for i, (u, r, p) in enumerate(both)]
    write(tmp_path, "ks", both, ["accuracy"], ACCURACY, upstream="a")
    write(tmp_path, "ks", one, ["accuracy"], ACCURACY, upstream="b")
    other = [(u, "maybe", p) for u, _, p in both]
    write(tmp_path, "ks", other, ["accuracy"], ACCURACY, upstream="other-test-set")
    found = files(tmp_path)
    hard = wrong.hardest(found.results, wrong.predictions(found, found.results))
    assert hard is not None
    assert hard.head == ("utterance", "speaker", "reference", "a", "b")
    assert hard.ids == tuple(f"u{5 * s}" for s in range(8))
    assert hard.rows[0] == ("u0", "s0", "no", "?", "?")
    few = wrong.hardest(found.results[1:2], wrong.predictions(found, found.results[1:2]))
    assert few is not None
    assert "u2" in few.ids or len(few.ids) == wrong.WORST


def test_radars_run_from_chance_to_perfect(tmp_path: Path) -> None:
    perfect(tmp_path, upstream="best")
    write(tmp_path, "pr", PHONES, ["per"], PER, upstream="bad", protocol="superb")
    write(tmp_path, "ks", words(2), ["accuracy"], ACCURACY, upstream="bad", protocol="superb")
    for path in tmp_path.rglob("ic-*.tsv"):
        path.unlink()
    found = files(tmp_path)
    index = {"best": 0, "bad": 1}
    made = comparing.radar(found, found.results, index)
    assert made is not None
    best, bad = (dict(zip(made.head, row, strict=True)) for row in made.table)
    assert best["upstream"] == "best"
    assert {best[t] for t in ("pr", "asr", "asv", "sd", "sf", "ks")} == {"1.00"}
    value = {r.task: r.main.value for r in found.results if r.upstream == "bad"}
    assert bad["pr"] == f"{1 - value['pr']:.2f}"
    assert value["ks"] == pytest.approx(0.6)
    assert bad["ks"] == "0.00"  # as often right as by always saying no
    assert bad["asr"] == "–"
    assert len(made.pictures) == 1  # two spokes are no radar
    assert "Without ic: no chance level" in made.caption  # its predictions are gone
    assert comparing.radar(found, [r for r in found.results if r.task == "pr"], index) is None


def test_sixty_results_stay_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sweep = [
        {"learning_rate": lr, "step": s, "train_loss": float(5 * rng.uniform(0.1, 1)), "dev": float(rng.uniform())}
        for lr in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5) for s in range(100, 4001, 100)
    ]  # fmt: skip
    chosen = [{"learning_rate": 1e-3, "step": 3000, "dev": 0.9}]
    shared: dict[str, Any] = {"sweep": sweep, "choices": chosen, "layer_weights": [1 / 13] * 13}
    for up in range(6):
        for corpus in range(5):
            options = {**shared, "upstream": f"upstream-{up}@run-final-123456", "corpus": f"corpus{corpus}",
                       "upstream_params": 10**7 * (up + 1)}  # fmt: skip
            count = rng.integers(0, 20, (12, 12)).tolist()
            write(tmp_path, "ks", words(up % 4), ["accuracy"], ACCURACY, confusion=count,
                  classes=[f"class{i}" for i in range(12)], **options)  # fmt: skip
            write(tmp_path, "pr", PHONES, ["per"], PER, **options)
    assert cli.main(["report", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").stat().st_size < 400_000
