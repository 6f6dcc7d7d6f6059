"""The race between full and truncated attention runs, and refuses what it cannot race."""

import pytest

from mynah.recipes import speed_attention
from mynah.recipes.speed_attention import Args


def test_full_attention_grows_faster(capsys: pytest.CaptureFixture[str]) -> None:
    args = Args(spec="hubert/tiny", window=8, seconds=(1.0, 2.0), runs=1)
    rows = speed_attention.measure(args)
    assert [row.frames for row in rows] == [50, 100]
    assert all(row.full > 0 and row.truncated > 0 for row in rows)
    assert speed_attention.main(args) == 0
    assert "2.0 times the frames cost" in capsys.readouterr().out


def test_refusals() -> None:
    with pytest.raises(ValueError, match="not built on the shared Transformer"):
        speed_attention.measure(Args(spec="apc/tiny"))
    with pytest.raises(ValueError, match="at least 1"):
        speed_attention.measure(Args(spec="hubert/tiny", window=0))
    with pytest.raises(ValueError, match="at least 1"):
        speed_attention.measure(Args(spec="hubert/tiny", threads=0))
    with pytest.raises(ValueError, match="seconds must be positive"):
        speed_attention.measure(Args(spec="hubert/tiny", seconds=(1.0, float("nan"))))
