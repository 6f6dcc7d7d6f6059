"""The BLSTM head of ASR, OOD-ASR and SF: sizes, downsampling, and s3prl's model on its weights."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call

from mynah.downstream.blstm_ctc import BLSTMCTC
from mynah.downstream.core.recurrent import BLSTM, reversed_in_length
from mynah.downstream.core.specaug import SpecAug

D, V = 6, 7
LENGTHS = torch.tensor([12, 1, 7])


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def blstm(dim: int, hidden: int) -> int:
    """Parameters of one layer: 4 gates, 2 directions, two biases each."""
    return 2 * 4 * (hidden * (dim + hidden) + 2 * hidden)


def small(**options: Any) -> BLSTMCTC:
    torch.manual_seed(0)
    return BLSTMCTC(D, V, **{"projection": 5, "hidden": 4, **options})


def test_sizes_are_those_of_superb() -> None:
    body = 768 * 1024 + 1024 + blstm(1024, 1024) + blstm(2048, 1024)
    assert body == 787_456 + 16_793_600 + 25_182_208
    with torch.device("meta"):
        assert count(BLSTMCTC(768, 32)) == body + 2048 * 32 + 32 == 42_828_832  # ASR
        assert count(BLSTMCTC(768, 109)) == body + 2048 * 109 + 109 == 42_986_605  # SF
        spanish = body + 2 * (2048 * 2048 + 2048) + 2048 * 58 + 58
        assert count(BLSTMCTC(768, 58, projections=True, stride_factor=2)) == spanish
        assert spanish == 51_274_810


def test_both_ways_to_run_a_layer_agree() -> None:
    torch.manual_seed(0)
    layer = BLSTM(D, 4).double()
    x_BTD = torch.randn(3, 12, D, dtype=torch.float64, requires_grad=True)
    packed, padded = layer.packed(x_BTD, LENGTHS), layer.padded(x_BTD, LENGTHS)
    torch.testing.assert_close(packed, padded)
    assert padded[1, 1:].abs().max() == 0
    weight = torch.randn_like(packed)
    inputs = [x_BTD, *layer.parameters()]
    ours = torch.autograd.grad((padded * weight).sum(), inputs)
    theirs = torch.autograd.grad((packed * weight).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_the_packed_way_takes_parameters_from_outside() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = BLSTM(D, 4)

        def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
            return self.layer.packed(x_BTD, LENGTHS)

    torch.manual_seed(0)
    one, other, x_BTD = Packed(), Packed(), torch.randn(3, 12, D)
    given = functional_call(one, dict(other.named_parameters()), (x_BTD,))
    assert torch.equal(given, other(x_BTD))
    assert not torch.equal(given, one(x_BTD))


def test_reversing_leaves_padding_where_it_is() -> None:
    x_BTD = torch.arange(8.0).view(2, 4, 1)
    turned = reversed_in_length(x_BTD, torch.tensor([3, 1]))
    assert turned[:, :, 0].tolist() == [[2, 1, 0, 3], [4, 5, 6, 7]]


def s3prl_model() -> Any:
    found = importlib.util.find_spec("s3prl")
    assert found is not None
    assert found.submodule_search_locations is not None
    file = Path(found.submodule_search_locations[0]) / "downstream" / "asr" / "model.py"
    spec = importlib.util.spec_from_file_location("s3prl_asr_model", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"projections": True, "stride_factor": 2},
        {"stride_factor": 3},
    ],
)
def test_s3prl_computes_the_same_with_the_same_weights(options: dict[str, Any]) -> None:
    head = small(**options).eval()
    rate, proj = options.get("stride_factor", 1), options.get("projections", False)
    theirs = s3prl_model().RNNs(
        5, V, 160, "LSTM", True, [4, 4], [0.2, 0.2], [False] * 2, [proj] * 2, [1, 1],
        "drop", total_rate=160 * rate,
    )  # fmt: skip
    for i, rnn in enumerate(theirs.rnns):
        rnn.layer.load_state_dict(head.get_submodule(f"layers.{i}.lstm").state_dict())
        if proj:
            rnn.pj.load_state_dict(head.get_submodule(f"projections.{i}.0").state_dict())
    theirs.linear.load_state_dict(head.classifier.state_dict())
    x_BTD = torch.randn(3, 12, D)
    lengths_B = torch.tensor([12, 4, 7])
    expected, expected_lengths = theirs.eval()(head.projector(x_BTD), lengths_B)
    out = head(x_BTD, lengths_B)
    assert out.shape == (3, 12 // rate, V)
    assert torch.equal(head.output_lengths(lengths_B), expected_lengths)
    for b, n in enumerate(expected_lengths.tolist()):
        torch.testing.assert_close(out[b, :n], expected[b, :n], rtol=1e-5, atol=1e-6)


def test_it_starts_as_lstms_do() -> None:
    """One seed gives the numbers of nn.LSTM and nn.Linear, in the order of s3prl's modules."""
    head = small()
    torch.manual_seed(0)
    projector = nn.Linear(D, 5)
    first = nn.LSTM(5, 4, bidirectional=True)
    assert torch.equal(head.projector.weight, projector.weight)
    name = "weight_hh_l0_reverse"
    assert torch.equal(head.state_dict()[f"layers.0.lstm.{name}"], first.state_dict()[name])


def test_specaug_and_dropout_act_in_training_only() -> None:
    head = small(specaug=SpecAug(frequency_width=D, time_width=0, window=0), dropout=0.0)
    x_BTD = torch.randn(3, 12, D)
    assert not torch.equal(head(x_BTD, LENGTHS), head(x_BTD, LENGTHS))
    head.eval()
    assert torch.equal(head(x_BTD, LENGTHS), head(x_BTD, LENGTHS))
    plain = small(specaug=None, dropout=0.0)
    assert torch.equal(plain(x_BTD, LENGTHS), head(x_BTD, LENGTHS))
    dropping = small(specaug=None, dropout=0.5)
    assert not torch.equal(dropping(x_BTD, LENGTHS), dropping(x_BTD, LENGTHS))
    assert torch.equal(dropping.eval()(x_BTD, LENGTHS), head(x_BTD, LENGTHS))


def test_it_learns_a_sequence_by_ctc() -> None:
    """CTC over the head's own output lengths finds the symbols of each item."""
    head = small(hidden=16, stride_factor=2, specaug=None, dropout=0.0)
    generator = torch.Generator().manual_seed(0)
    marks_VD = torch.randn(V, D, generator=generator)
    targets = [[1, 2, 3], [4], [6, 5]]
    x_BTD = torch.zeros(3, 24, D)
    for b, symbols in enumerate(targets):
        for i, symbol in enumerate(symbols):
            x_BTD[b, 6 * i : 6 * i + 4] = marks_VD[symbol]
    lengths_B = torch.tensor([24, 8, 15])
    optimizer = torch.optim.Adam(head.parameters(), lr=2e-2)
    flat, sizes = torch.tensor([s for t in targets for s in t]), torch.tensor([3, 1, 2])
    for _ in range(80):
        logs = head(x_BTD, lengths_B).log_softmax(-1).transpose(0, 1)
        loss = nn.functional.ctc_loss(logs, flat, head.output_lengths(lengths_B), sizes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best_BT = head.eval()(x_BTD, lengths_B).argmax(-1)
    for b, n in enumerate(head.output_lengths(lengths_B).tolist()):
        path = torch.unique_consecutive(best_BT[b, :n]).tolist()
        assert [s for s in path if s] == targets[b]


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        small(stride_factor=0)
    with pytest.raises(ValueError, match="at least 2 frames of each item, got one with 1"):
        small(stride_factor=2)(torch.zeros(3, 12, D), LENGTHS)
