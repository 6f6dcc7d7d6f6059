"""The mask head of enhancement and separation: sizes, torch's own LSTM, masks that can be masks."""

import pytest
import torch
from torch import nn

from mynah.downstream.mask_rnn import MaskRNN

D = 6


def blstm(dim: int, hidden: int) -> int:
    return 2 * 4 * (hidden * (dim + hidden) + 2 * hidden)


def test_sizes_are_those_of_superb() -> None:
    def count(module: nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    body = blstm(768, 896) + 2 * blstm(1792, 896)
    assert body == 11_941_888 + 2 * 19_281_920
    mask = 1792 * 257 + 257
    with torch.device("meta"):
        assert count(MaskRNN(768)) == body + mask == 50_966_529  # SE
        assert count(MaskRNN(768, sources=2)) == body + 2 * mask == 51_427_330  # SS
        second = MaskRNN(768, hidden=256, dropout=0.1, activation="sigmoid")
        assert count(second) == blstm(768, 256) + 2 * blstm(512, 256) + 512 * 257 + 257


@pytest.mark.parametrize("activation", ["relu", "sigmoid"])
def test_it_is_torchs_stacked_lstm(activation: str) -> None:
    torch.manual_seed(0)
    head = MaskRNN(D, 5, sources=2, hidden=4, activation=activation).eval()  # type: ignore[arg-type]
    lstm = nn.LSTM(D, 4, 3, batch_first=True, bidirectional=True)
    state = {
        name.replace("_l0", f"_l{i}"): value
        for i in range(3)
        for name, value in head.get_submodule(f"layers.{i}.lstm").state_dict().items()
    }
    lstm.load_state_dict(state)
    x_BTD = torch.randn(2, 9, D)
    hidden, _ = lstm(x_BTD)
    function = {"relu": torch.relu, "sigmoid": torch.sigmoid}[activation]
    expected = torch.stack([function(mask(hidden)) for mask in head.masks], dim=2)
    out = head(x_BTD)
    assert out.shape == (2, 9, 2, 5)
    torch.testing.assert_close(out, expected)


def test_the_same_seed_gives_torchs_weights() -> None:
    torch.manual_seed(1)
    head = MaskRNN(D, 5, hidden=4)
    torch.manual_seed(1)
    lstm = nn.LSTM(D, 4, 3, batch_first=True, bidirectional=True)
    last = head.state_dict()["layers.2.lstm.weight_hh_l0_reverse"]
    assert torch.equal(last, lstm.state_dict()["weight_hh_l2_reverse"])


def test_padding_is_zero_and_dropout_is_for_training() -> None:
    torch.manual_seed(0)
    head = MaskRNN(D, 5, hidden=4, activation="sigmoid")
    x_BTD = torch.randn(2, 9, D)
    lengths_B = torch.tensor([9, 4])
    assert not torch.equal(head(x_BTD, lengths_B), head(x_BTD, lengths_B))
    head.eval()
    out = head(x_BTD, lengths_B)
    assert torch.equal(out, head(x_BTD, lengths_B))
    assert out[1, 4:].abs().max() == 0
    assert out[1, :4].min() > 0
    assert out.max() < 1
    assert MaskRNN(D, 5, hidden=4)(x_BTD).min() == 0  # ReLU


def test_an_unknown_activation_is_refused() -> None:
    with pytest.raises(ValueError, match="'relu' or 'sigmoid', got 'tanh'"):
        MaskRNN(D, 5, activation="tanh")  # type: ignore[arg-type]
