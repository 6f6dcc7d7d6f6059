"""What pretraining buys: paired intervals by hand, multiply-accumulates, and the command itself."""

import sys
from pathlib import Path

import numpy as np
import pytest

import mynah.upstream
from mynah.recipes import cli, paired, results
from mynah.recipes.costs.superb import LENGTHS, macs_of
from mynah.recipes.gain import Probe
from mynah.tasks.metrics.accuracy import accuracy
from mynah.tasks.metrics.error_rate import error_rate
from mynah.tasks.metrics.metric import Floats, Weigh

sys.path.append(str(Path(__file__).parent / "doubles"))
from tones import write_tones


def side(right: list[list[int]], per_unit: int = 4, *, error: bool = False) -> paired.Side:
    """Runs x units: how many of ``per_unit`` utterances are right (or wrong, for error rates)."""
    rows = np.array(right, dtype=np.float64)
    beside = [np.zeros_like(rows)] * 2 if error else []  # deletions and insertions
    sums_RUS = np.stack([rows, *beside, np.full_like(rows, per_unit)], axis=-1)
    metric = error_rate("phone", norm="none") if error else accuracy()

    def weigh_by(sums_US: Floats) -> Weigh:
        return lambda weight_DU: metric.value(weight_DU @ sums_US)

    return paired.Side(
        values=tuple(float(v) for v in metric.value(sums_RUS.sum(axis=1))),
        weighs=tuple(weigh_by(sums_US) for sums_US in sums_RUS),
        names=tuple(map(str, range(rows.shape[1]))),
        unit="speaker",
        signature=metric.signature,
        higher_is_better=metric.higher_is_better,
    )


def test_counts_of_the_metrics_are_what_the_tables_hold() -> None:
    counts = accuracy().counts(["a", "b"], ["a", "a"], ["", ""])
    assert counts.tolist() == [[1, 1], [0, 1]]
    errors = error_rate("phone", norm="none").counts(["A B"], ["A"], [""])
    assert errors.shape == (1, 4)
    assert errors[0, :3].sum() == 1
    assert errors[0, 3] == 2


def test_means_and_difference() -> None:
    ours, other = side([[4, 4, 2, 4, 4, 3], [4, 2, 2, 4, 4, 3]]), side([[1, 2, 1, 1, 0, 1]] * 2)
    found = paired.compare(ours, other)
    assert found.ours.value == pytest.approx((21 + 19) / 48)
    assert found.other.value == pytest.approx(6 / 24)
    assert found.better.value == pytest.approx(40 / 48 - 6 / 24)
    assert found.ours.low < found.ours.value < found.ours.high
    assert found.separated
    assert (found.units, found.unit) == (6, "speaker")
    assert paired.compare(other, ours).better.high < 0
    assert not paired.compare(other, ours).separated
    assert found == paired.compare(ours, other)  # the draws are seeded


def test_heads_on_one_model_are_one_run() -> None:
    """Two heads of one model, one of them unlucky: their mean, drawn as one."""
    lucky, unlucky = [4, 3, 4, 2, 4, 4], [1, 0, 1, 0, 2, 0]
    mean = paired.averaged(side([lucky, unlucky]))
    assert mean.values == (pytest.approx((21 + 4) / 48),)
    (weigh,) = mean.weighs
    assert weigh(np.array([[0, 2, 0, 1, 0, 0]]))[0] == pytest.approx((8 / 12 + 0 / 12) / 2)
    other = side([[1, 1, 1, 1, 1, 1]])
    as_heads = paired.compare(mean, other).ours
    as_models = paired.compare(side([lucky, unlucky]), other).ours
    assert as_heads.value == as_models.value
    assert as_heads.high - as_heads.low < 0.6 * (as_models.high - as_models.low)
    both = paired.joined([mean, side([lucky])])
    assert both.values == (mean.values[0], pytest.approx(21 / 24))
    assert len(both.weighs) == 2
    with pytest.raises(ValueError, match="no runs"):
        paired.joined([])
    with pytest.raises(ValueError, match="different utterances"):
        paired.joined([mean, side([[1, 2, 3]])])


def test_fewer_errors_are_better() -> None:
    better, worse = side([[1, 0, 1, 2, 1]], error=True), side([[4, 3, 4, 4, 4]], error=True)
    found = paired.compare(better, worse)
    assert found.better.value == pytest.approx((19 - 5) / 20)
    assert found.separated
    assert not paired.compare(worse, better).separated


def test_pairing_narrows_the_interval() -> None:
    """Speakers differ far more than the two sides: only the difference is sure."""
    easy = [12, 1, 9, 3, 11, 2, 8, 5]
    ours, other = side([[n + 2 for n in easy]], 16), side([easy], 16)
    found = paired.compare(ours, other)
    assert not found.separated
    assert found.better.low == found.better.high == pytest.approx(2 / 16)


def test_a_seed_that_fails_widens_the_interval() -> None:
    steady, shaky = side([[3] * 6] * 3), side([[3] * 6, [3] * 6, [0] * 6])
    other = side([[1] * 6] * 3)
    sure, unsure = (paired.compare(s, other) for s in (steady, shaky))
    assert sure.ours.low == sure.ours.high
    assert unsure.ours.high - unsure.ours.low > 0.4
    assert not unsure.separated


def test_sides_must_fit() -> None:
    with pytest.raises(ValueError, match="different utterances"):
        paired.compare(side([[1, 2]]), side([[1, 2, 3]]))
    with pytest.raises(ValueError, match="no runs"):
        paired.side([], [])


def test_macs_of_layers_worked_out_by_hand() -> None:
    """Projections, attention and feed-forward of each layer, over the 32 lengths."""
    model = mynah.upstream.build("hubert/tiny")
    dim, ffn = 192, 768
    least = 0
    for samples in LENGTHS:
        frames = model.num_frames(samples)
        layer = frames * (4 * dim * dim + 2 * dim * ffn) + 2 * frames * frames * dim
        least += 3 * layer + frames * 80 * dim
    # what is on top: the position convolution and the spectrogram
    assert least < macs_of(model).total < 1.6 * least
    apc = mynah.upstream.build("apc/tiny")
    steps = sum(apc.num_frames(samples) for samples in LENGTHS)
    gru = steps * 3 * 256 * ((80 + 256) + 2 * (256 + 256))
    assert macs_of(apc).total == pytest.approx(gru, rel=0.05)


def test_probes_are_read() -> None:
    assert Probe.parse("pr:data/l2:300") == Probe(task="pr", corpus=Path("data/l2"), steps=300)
    assert Probe.parse("pr:l2:300:1e-2").rate == 0.01
    assert Probe.parse("ks:x").steps is None
    for bad in ("pr", "pr:", "pr:l2:many", "pr:l2:1:2:3"):
        with pytest.raises(ValueError, match="TASK:CORPUS"):
            Probe.parse(bad)


def test_from_audio_to_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tones(tmp_path / "tones", speakers=6, takes=2)
    corpus = str(tmp_path / "tones")
    recipe = ["gain", "apc/tiny", "--corpus", corpus, "--probe", f"ks:{corpus}:20", "--seeds", "0"]
    command = [*recipe, "--baselines", "fbank/tiny", "--out", str(tmp_path / "gain"), "--jobs", "2"]
    command += ["--override", "train.steps=2", "--override", "train.min_seconds=0"]
    command += ["--override", "train.schedule.kind=constant"]
    assert cli.main(command) == 0, capsys.readouterr().err
    text = capsys.readouterr().out
    header, _, first, last, *_ = text.splitlines()
    assert header.startswith("| model | parameters | MAC/s | CPU s | ks tones | untrained |")
    assert first.startswith("| apc/tiny |")
    assert first.count("[") == 3
    assert last.startswith("| fbank/tiny | 0 |")
    # again: nothing is computed, the table is the same
    assert cli.main([*command, "--table-only"]) == 0
    assert capsys.readouterr().out == text
    # a second head on each model: the score is the mean of both, the first is not trained again
    assert cli.main([*command, "--heads", "2"]) == 0
    two = capsys.readouterr().out
    assert "means over 1 seeds, each the mean of 2 heads" in two
    kept = [results.load(path) for path in results.walk(tmp_path / "gain" / "results")]
    own = [one for one in kept if one.upstream.startswith("fbank")]
    assert sorted(one.seed for one in own) == [0, 1000]
    mean = sum(one.main.value for one in own) / 2
    assert two.splitlines()[3].split(" | ")[4].startswith(f"{100 * mean:.1f} [")
    # in two parts, as on two machines, of normalised states: the same runs, other results
    for part, count in (("untrained", 2), ("pretrained", 3)):
        more = ["--layer-norm", "--part", part, "--out", str(tmp_path / "parts")]
        assert cli.main([*command[: command.index("--out")], *more, *command[-6:]]) == (
            0 if part == "pretrained" else 1  # the table lacks what the other part does
        )
        kept = [results.load(path) for path in results.walk(tmp_path / "parts" / "results")]
        assert len(kept) == count
        assert {result.settings["layer_norm"] for result in kept} == {"true"}
    missing = [*command, "--table-only", "--seeds", "0", "1"]
    assert cli.main(missing) == 1
    assert "–" in capsys.readouterr().out


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tail = ["--corpus", "c", "--probe", "ks:c", "--out", str(tmp_path / "gain")]
    assert cli.main(["gain", "acp/tiny", *tail]) == 2
    assert "Closest" in capsys.readouterr().err
    assert cli.main(["gain", "apc/tiny", *tail, "--teacher", "apc/tiny=hubert/tiny"]) == 2
    assert "MODEL=TEACHER of the models given" in capsys.readouterr().err
    for wrong, message in (
        (["--heads", "0"], "heads must be at least 1"),
        (["--seeds", "0", "1000"], "within 1000 of each other"),
    ):
        assert cli.main(["gain", "apc/tiny", *tail, *wrong]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "gain").exists()
