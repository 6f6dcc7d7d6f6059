"""The diarizer: sizes, and that it looks only back."""

import torch
from torch import nn

from mynah.downstream.diarizer import Diarizer

D = 6


def test_sizes_are_those_of_superb() -> None:
    with torch.device("meta"):
        head = Diarizer(768)
    lstm = 4 * (512 * (768 + 512) + 2 * 512)  # four gates, two biases
    count = sum(p.numel() for p in head.parameters())
    assert count == lstm + 512 * 2 + 2 == 2_626_562


def test_it_is_an_lstm_cell_over_time() -> None:
    torch.manual_seed(0)
    head = Diarizer(D, 3, hidden=4).double()
    cell = nn.LSTMCell(D, 4).double()
    own = dict(head.lstm.named_parameters())
    cell.load_state_dict(
        {name: own[f"{name}_l0"].detach() for name in dict(cell.named_parameters())}
    )
    x_BTD = torch.randn(2, 9, D, dtype=torch.float64)
    state, rows = None, []
    for x_BD in x_BTD.unbind(1):
        state = cell(x_BD, state)
        rows.append(head.classifier(state[0]))
    torch.testing.assert_close(head(x_BTD), torch.stack(rows, dim=1))


def test_the_future_does_not_matter() -> None:
    head = Diarizer(D, hidden=4)
    x_BTD = torch.randn(2, 9, D)
    changed = x_BTD.clone()
    changed[:, 5:] += 1
    out, other = head(x_BTD), head(changed)
    assert out.shape == (2, 9, 2)
    assert torch.equal(out[:, :5], other[:, :5])
    assert not torch.equal(out[:, 5:], other[:, 5:])
