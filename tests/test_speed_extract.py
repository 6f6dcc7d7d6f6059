"""The race against other libraries: the same weights in all of them, and an honest table."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from mynah.recipes import speed_extract, speed_peers
from mynah.recipes.speed_extract import ALONE, Args, lines, main, run, speech
from mynah.upstream.wav2vec2 import CONFIGS, Config

SMALL = Config(
    conv_channels=32, dim=64, layers=2, heads=4, ffn=96, codes=8, code_dim=16, final_dim=16
)


def test_every_library_computes_the_same_and_padding_shows() -> None:
    rows = {row.name: row for row in run((0.3, 1.5), 3, runs=1, batch=2, config=SMALL)}
    peers = [f"{name}, batches of 2" for name in ("s3prl", "HF sdpa", "torchaudio")]
    assert {*peers, ALONE, "ours, fp32", "ours, bf16"} == set(rows)
    for name in (*peers, ALONE, "ours, fp32"):
        assert rows[name].note == ""
        assert rows[name].cpu_seconds is not None
    assert rows[ALONE].last == 0.0
    ours = rows["ours, fp32"]
    assert ours.last is not None
    assert ours.last < 1e-5
    for name in peers:  # a padded batch is not what these weights yield alone
        assert rows[name].last is not None
        assert 1e-3 < rows[name].last < 1  # type: ignore[operator]
    best = min(rows[name].cpu_seconds for name in peers)  # type: ignore[type-var]
    assert ours.ratio == pytest.approx(best / ours.cpu_seconds)  # type: ignore[operator]


def test_alone_every_peer_equals_ours() -> None:
    rows = run((0.4, 0.4), 2, runs=1, batch=1, config=SMALL)
    for row in rows:
        if row.last is not None and "bf16" not in row.name:
            assert row.last < 1e-5, row


def test_a_peer_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: object) -> speed_peers.Forward:
        raise ImportError("No module named 'elsewhere'")

    monkeypatch.setattr(speed_peers, "PEERS", {"elsewhere": absent})
    rows = run((0.1, 0.2), 2, runs=1, batch=2, config=SMALL)
    assert rows[0].note == "cannot run here: ImportError: No module named 'elsewhere'"
    assert "No module named 'elsewhere'" in lines(rows)[2]
    ours = next(row for row in rows if row.name == "ours, fp32")
    assert ours.ratio is None
    assert ours.last == 0.0


def test_noise_is_seeded_and_unsorted() -> None:
    one, two = (speech((0.1, 0.5), 6, seed=4, corpus=None) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    lengths = [len(wav) for wav in one]
    assert sorted(lengths) != lengths
    assert (min(lengths), max(lengths)) == (1600, 8000)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, "tiny-wav", SMALL)
    file = tmp_path / "rows.json"
    assert (
        main(Args(variant="tiny-wav", utterances=2, shortest=0.1, longest=0.3, runs=1, json=file))
        == 0
    )
    printed = capsys.readouterr().out
    assert "| ours, fp32 |" in printed
    rows = json.loads(file.read_text())
    assert {row["name"] for row in rows} >= {ALONE, "ours, fp32"}


@pytest.mark.parametrize("change", [{"front": "mel"}, {"conv_norm": "layer"}, {"norm": "pre"}])
def test_another_architecture_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="a model like base"):
        run(config=dataclasses.replace(SMALL, **change))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'base' or 'tiny-wav'"):
        main(speed_extract.Args(variant="tiny"))
