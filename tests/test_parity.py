"""Our models are the published ones: every pair of ``mynah check parity``; and it can say no."""

import dataclasses
from pathlib import Path

import pytest
import torch

from mynah.recipes import check, cli, errors, parity
from mynah.recipes.parity import PAIRS, Measured, Pair, cases_torchaudio
from mynah.recipes.parity.compare import distance
from mynah.upstream import available


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_family_equals_its_reference(pair: Pair, tmp_path: Path) -> None:
    assert pair.installed
    measured = pair.measure(tmp_path)
    assert measured.equal, measured


def test_families_with_a_reader_have_a_pair() -> None:
    from mynah.upstream.interop import families

    readers = {
        name for kind in ("fairseq", "hf", "s3prl", "torchaudio") for name in families.known(kind)
    }
    assert readers <= {pair.family for pair in PAIRS} <= set(available())


def test_a_small_change_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (pair,) = (p for p in cases_torchaudio.PAIRS if p.reference == "torchaudio wavlm_base")

    def nudged(ours, theirs, **options):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            ours.get_parameter("encoder.layers.2.attn.gate.linear.weight").mul_(1.01)
        return distance(ours, theirs, **options)

    monkeypatch.setattr(cases_torchaudio, "distance", nudged)
    assert not pair.measure(tmp_path).equal
    assert not Measured(0.0, 2e-5).equal
    assert not Measured(float("inf")).equal


def test_the_table_and_its_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Path) -> Measured:
        raise TypeError("no such [argument]")

    made = Pair(
        family="apc", reference="numpy X", setting="a, b", measure=lambda _: Measured(1e-7, 0)
    )
    rows = [
        made,
        dataclasses.replace(made, measure=lambda _: Measured(1e-7, 1e-3)),
        dataclasses.replace(made, setting="c", measure=broken),
        dataclasses.replace(made, setting="d", reference="not_there X"),
    ]
    monkeypatch.setattr(parity, "PAIRS", rows)
    assert [row[3:] for row in check.rows(rows)] == [
        ("1.0e-07", "0.0e+00", "PASS"),
        ("1.0e-07", "1.0e-03", "FAIL"),
        ("-", "-", "FAIL TypeError: no such [argument]"),
        ("-", "-", "not installed"),
    ]
    assert cli.main(["check", "parity"]) == 1
    assert "1 equal, 2 too far" in capsys.readouterr().out
    monkeypatch.setattr(parity, "PAIRS", rows[:1])
    assert cli.main(["check", "parity", "b"]) == errors.DONE
    assert cli.main(["check", "parity", "wav2vec"]) == errors.USAGE
    assert "Available: apc." in capsys.readouterr().err
    assert cli.main(["check", "upstream"]) == errors.USAGE
    assert "name the upstream" in capsys.readouterr().err
