"""The race of pretraining steps: every peer runs with our sizes, and the table is honest."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mynah import upstream
from mynah.recipes import cli, speed_pretrain, speed_pretrain_peers
from mynah.recipes.speed_pretrain import RACES, Args, main, run
from mynah.recipes.speed_pretrain_rows import Row, lines, peak_of, rows_of

SMALL: dict[str, Any] = {
    "wav2vec2/tiny-wav": {"conv_channels": 32, "dim": 48, "layers": 2, "heads": 3, "ffn": 64},
    "hubert/base": {
        "conv_channels": 32, "dim": 48, "layers": 2, "heads": 3, "ffn": 64, "clusters": 7,
        "final_dim": 16,
    },
    "mockingjay/base": {"dim": 48, "layers": 2, "heads": 3, "ffn": 64},
    "mockingjay/tera": {"dim": 48, "layers": 2, "heads": 3, "ffn": 64},
    "apc/base": {"width": 32, "layers": 2},
}  # fmt: skip
RACERS = {name: race for name, race in RACES.items() if name != "wav2vec2-base"}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the raced configs small."""
    for spec, changes in SMALL.items():
        family, _, variant = spec.partition("/")
        configs = upstream.get(family).CONFIGS
        monkeypatch.setitem(configs, variant, dataclasses.replace(configs[variant], **changes))


@pytest.mark.filterwarnings("ignore")
def test_every_peer_trains() -> None:
    args = Args(races=tuple(RACERS), seconds=0.5, scale=0.1, steps=1, precision="fp32")
    rows = run(args, RACERS)
    assert all(not row.note for row in rows), [row.note for row in rows]
    titles = list(dict.fromkeys(row.race for row in rows))
    assert titles == [race.title for race in RACERS.values()]
    for title in titles:
        peers = [r for r in rows if r.race == title and not r.name.startswith("ours")]
        ours = [r for r in rows if r.race == title and r.name.startswith("ours")]
        assert len(peers) == 1
        assert peers[0].ratio is None
        for row in ours:
            assert row.seconds is not None
            assert peers[0].seconds is not None
            assert row.ratio == pytest.approx(peers[0].seconds / row.seconds)
    text = lines(rows)
    assert text[0].count("|") == 5
    assert all(line.count("|") == 5 for line in text)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("spec", "peer"),
    [
        ("wav2vec2/tiny-wav", "hugging_face_wav2vec2"),
        ("hubert/base", "torchaudio_hubert"),
        ("mockingjay/base", "s3prl_masked"),
        ("apc/base", "s3prl_apc"),
    ],
)
def test_peers_have_our_size_and_train_all_of_it(spec: str, peer: str) -> None:
    torch.manual_seed(0)
    model, loss = getattr(speed_pretrain_peers, peer)(speed_pretrain._config(spec))
    ours = sum(p.numel() for p in upstream.build(spec).parameters())
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(ours, rel=0.02)
    total = loss(0.1 * torch.randn(2, 12000))
    assert total.isfinite()
    total.backward()  # type: ignore[no-untyped-call]
    reached = sum(p.numel() for p in model.parameters() if p.grad is not None)
    assert reached == pytest.approx(ours, rel=0.02)


def test_a_peer_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: object) -> Any:
        raise ImportError("No module named 'elsewhere'")

    monkeypatch.setattr(speed_pretrain_peers, "s3prl_apc", absent)
    args = Args(races=("apc",), seconds=0.3, scale=0.1, steps=1, precision="fp32")
    rows = run(args)
    assert {row.note for row in rows if "s3prl" in row.name} == {
        "cannot run here: ImportError: No module named 'elsewhere'"
    }
    ours = [row for row in rows if row.name.startswith("ours")]
    assert ours
    assert all(row.ratio is None for row in ours)
    assert any("No module named 'elsewhere'" in line for line in lines(rows))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    only = dataclasses.replace(RACES["apc"], peers={})
    speed_pretrain.RACES["alone"] = only
    try:
        args = Args(races=("alone",), seconds=0.3, scale=0.1, steps=1, precision="fp32", json=file)
        assert main(args) == 0
    finally:
        del speed_pretrain.RACES["alone"]
    assert "| ours, apc/base, fp32 |" in capsys.readouterr().out
    (row,) = json.loads(file.read_text())
    assert row["audio"] == pytest.approx(0.3)
    assert cli.main(["speed", "pretrain", "--races", "nothing"]) == 2
    assert "unknown race" in capsys.readouterr().err


def test_refusals() -> None:
    with pytest.raises(ValueError, match="steps and threads must be at least 1"):
        run(Args(steps=0))
    with pytest.raises(ValueError, match="seconds, scale and peak above 0"):
        run(Args(seconds=0.0))
    with pytest.raises(ValueError, match="seconds, scale and peak above 0"):
        run(Args(peak=-1.0))
    with pytest.raises(ValueError, match="no GPU number 99"):
        run(Args(device="cuda:99"))


def test_peaks_of_cards() -> None:
    assert peak_of("NVIDIA H100 80GB HBM3", "bf16") == 989.0
    assert peak_of("NVIDIA H100 PCIe", "bf16") == 756.0
    assert peak_of("NVIDIA A100-SXM4-80GB", "fp32") == 156.0
    assert peak_of("NVIDIA L40S", "bf16") == 362.0
    assert peak_of("NVIDIA L4", "bf16") == 121.0
    assert peak_of("Something else", "bf16") is None


def test_utilisation_is_operations_over_time_over_peak() -> None:
    (row,) = rows_of(
        "t",
        (),
        {("ours, a/b", "bf16"): [0.5]},
        {},
        {"a/b": 10**14},
        audio=10.0,
        peak=lambda precision: 1000.0,
    )
    assert row.utilisation == pytest.approx(0.2)
    assert lines([row], gpu=True)[-1] == "| ours, a/b, bf16 | 0.500 | 20.00 |  | 20.0% |"
    blank = Row(race="t", name="x", precision="fp32", note="why")
    assert lines([blank], gpu=True)[-1].count("|") == 6


def test_operations_are_counted() -> None:
    weight = torch.randn(3, 5, requires_grad=True)

    def step(index: int) -> None:
        (torch.randn(7, 5) @ weight.T).sum().backward()

    assert speed_pretrain.counted(step) == 2 * 2 * 7 * 5 * 3
