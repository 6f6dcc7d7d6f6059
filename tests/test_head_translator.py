"""The translator: sizes, torch's own Transformer layers, and a search that finds the best there is."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mynah.downstream.core.beam import Hypothesis, beam_search
from mynah.downstream.core.seq2seq import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    sinusoids,
    teacher_forcing,
)
from mynah.downstream.translator import Translator

D, PAD, EOS = 6, 1, 2


def small(symbols: int = 7, seed: int = 0, spread: float = 0.0, **options: Any) -> Translator:
    torch.manual_seed(seed)
    sizes = {"width": 8, "inner": 12, "heads": 2, "conv_channels": 10, "encoder_layers": 2}
    model = Translator(D, symbols, **{**sizes, "decoder_layers": 2, **options})
    if spread:
        nn.init.normal_(model.classifier.weight, std=spread)
    return model.eval()


def features(batch: int = 3, frames: int = 21) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    lengths_B = torch.tensor([frames, 9, 14, 5][:batch])
    return torch.randn(batch, frames, D, generator=generator), lengths_B


def test_sizes_are_those_of_fairseq() -> None:
    """By hand, from the sizes of s2t_transformer with 3 + 3 layers; V symbols, twice."""
    attention = 4 * (512 * 512 + 512)
    feed_forward = 512 * 2048 + 2048 + 2048 * 512 + 512
    norm = 2 * 512
    subsampler = 768 * 1024 * 5 + 1024 + 512 * 1024 * 5 + 1024
    encoder = 3 * (attention + feed_forward + 2 * norm) + norm
    decoder = 3 * (2 * attention + feed_forward + 3 * norm) + norm
    with torch.device("meta"):
        count = sum(p.numel() for p in Translator(768, 100).parameters())
    assert subsampler + encoder + decoder == 28_626_944
    assert count == 28_626_944 + 2 * 512 * 100


# -- layers ---------------------------------------------------------------------------------


def give_attention(theirs: nn.MultiheadAttention, ours: Attention) -> None:
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())


def test_encoder_layer_is_torchs() -> None:
    torch.manual_seed(0)
    ours = EncoderLayer(8, 2, 12, 0.0)
    theirs = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=True)
    give_attention(theirs.self_attn, ours.attention)
    theirs.norm1, theirs.norm2 = ours.attention_norm, ours.feed_forward_norm
    theirs.linear1, theirs.linear2 = ours.feed_forward.first, ours.feed_forward.second
    x_BTD = torch.randn(2, 7, 8)
    mask_BT = torch.arange(7)[None] < torch.tensor([7, 4])[:, None]
    out, expected = ours(x_BTD, mask_BT), theirs(x_BTD, src_key_padding_mask=~mask_BT)
    torch.testing.assert_close(out[0], expected[0])
    torch.testing.assert_close(out[1, :4], expected[1, :4])


def test_decoder_layer_is_torchs_and_steps_are_the_layer() -> None:
    torch.manual_seed(0)
    ours = DecoderLayer(8, 2, 12, 0.0)
    theirs = nn.TransformerDecoderLayer(8, 2, 12, 0.0, batch_first=True, norm_first=True)
    give_attention(theirs.self_attn, ours.attention)
    give_attention(theirs.multihead_attn, ours.across)
    theirs.norm1, theirs.norm2 = ours.attention_norm, ours.across_norm
    theirs.norm3 = ours.feed_forward_norm
    theirs.linear1, theirs.linear2 = ours.feed_forward.first, ours.feed_forward.second
    x_BUD, memory_BTD = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    mask_BT = torch.arange(7)[None] < torch.tensor([7, 4])[:, None]
    memory = ours.across.project(memory_BTD)
    out = ours(x_BUD, memory, mask_BT)
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = theirs(x_BUD, memory_BTD, tgt_mask=causal, memory_key_padding_mask=~mask_BT)
    torch.testing.assert_close(out, expected)
    past = None
    for u in range(5):  # one hypothesis for each item
        row_BKD, past = ours.step(x_BUD[:, u : u + 1], past, memory, mask_BT)
        torch.testing.assert_close(row_BKD[:, 0], out[:, u])


def test_positions_are_fairseqs() -> None:
    """Position 0 is fairseq's index 2: sin(2 w), cos(2 w) with w from 1 down to 1/10000."""
    table = sinusoids(0, 3, 6, torch.zeros(1))
    frequencies = [1.0, 0.01, 0.0001]
    for i, place in enumerate((2, 3, 4)):
        expected = [math.sin(place * f) for f in frequencies]
        expected += [math.cos(place * f) for f in frequencies]
        assert table[i].tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(sinusoids(1, 2, 6, torch.zeros(1)), table[1:])


def test_a_quarter_of_the_frames() -> None:
    model = small()
    for frames in range(1, 18):
        memory, mask = model.encode(torch.randn(1, frames, D))
        assert memory.shape[1] == -(-frames // 4) == int(mask.sum())
    x_BTD, lengths_B = features()
    _, mask_BT = model.encode(x_BTD, lengths_B)
    assert mask_BT.sum(1).tolist() == [6, 3, 4]


def test_a_symbol_sees_only_those_before_it() -> None:
    model = small()
    x_BTD, lengths_B = features()
    previous, _ = teacher_forcing([[3, 4, 5], [6], [5, 5]])
    out = model(x_BTD, lengths_B, previous)
    changed = previous.clone()
    changed[:, 2:] = 6
    other = model(x_BTD, lengths_B, changed)
    assert out.shape == (3, 4, 7)
    torch.testing.assert_close(out[:, :2], other[:, :2])
    assert not torch.allclose(out[:, 2:], other[:, 2:])
    alone = model(x_BTD[1:2, :9], None, torch.tensor([[EOS, 6]]))  # targets may be padded too
    torch.testing.assert_close(out[1, :2], alone[0], rtol=1e-5, atol=1e-5)


def test_teacher_forcing() -> None:
    previous, answers = teacher_forcing([[5, 6], [], [4]])
    assert previous.tolist() == [[2, 5, 6], [2, 1, 1], [2, 4, 1]]
    assert answers.tolist() == [[5, 6, 2], [2, 1, 1], [4, 2, 1]]


def test_dropout_acts_in_training_only_and_search_leaves_the_mode() -> None:
    model = small(dropout=0.5)
    x_BTD, lengths_B = features()
    previous, _ = teacher_forcing([[3], [4], [5]])
    assert torch.equal(model(x_BTD, lengths_B, previous), model(x_BTD, lengths_B, previous))
    found = model.beam_search(x_BTD, lengths_B, beam=2, max_len=5)
    model.train()
    assert not torch.equal(model(x_BTD, lengths_B, previous), model(x_BTD, lengths_B, previous))
    assert model.beam_search(x_BTD, lengths_B, beam=2, max_len=5) == found
    assert model.training
    assert model.decoder[0].training


# -- search ---------------------------------------------------------------------------------


def log_probabilities(model: Translator, x_1TD: Tensor, tokens: list[int]) -> Tensor:
    """(U + 1, V), by teacher forcing, nothing cached."""
    logits: Tensor = model(x_1TD, None, torch.tensor([[EOS, *tokens]]))
    return logits[0].detach().log_softmax(-1)


def score(model: Translator, x_1TD: Tensor, tokens: list[int]) -> float:
    logs_UV = log_probabilities(model, x_1TD, tokens)
    chosen = logs_UV[torch.arange(len(tokens) + 1), torch.tensor([*tokens, EOS])]
    return float(chosen.sum()) / (len(tokens) + 1)


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best_of_all(seed: int) -> None:
    """Vocabulary of 4, up to 4 symbols: all 2 + 4 + 8 + 16 hypotheses scored one by one."""
    model = small(4, seed, spread=1.0)
    x_BTD, lengths_B = features()
    found = model.beam_search(x_BTD, lengths_B, beam=30, max_len=4)
    for b, n in enumerate(lengths_B.tolist()):
        every = [list(t) for u in range(1, 5) for t in itertools.product((0, 3), repeat=u)]
        best = max(every, key=lambda tokens: score(model, x_BTD[b : b + 1, :n], tokens))
        assert found[b] == best


def plain_search(model: Translator, x_1TD: Tensor, beam: int, max_len: int) -> list[Hypothesis]:
    """fairseq's search over one item in plain Python, a whole forward for every hypothesis."""
    going: list[tuple[list[int], float]] = [([], 0.0)]
    done: list[Hypothesis] = []
    for length in range(max_len + 1):
        candidates = []
        for tokens, total in going:
            logs = log_probabilities(model, x_1TD, tokens)[-1].tolist()
            for symbol, value in enumerate(logs):
                forced = length == max_len and symbol != EOS
                if symbol == PAD or forced or (symbol == EOS and length < 1):
                    continue
                candidates.append(([*tokens, symbol], total + value))
        candidates = sorted(candidates, key=lambda c: -c[1])[: 2 * beam]
        for tokens, total in candidates[:beam]:
            if tokens[-1] == EOS and len(done) < beam:
                done.append(Hypothesis(tokens[:-1], total / len(tokens)))
        going = [c for c in candidates if c[0][-1] != EOS][:beam]
        if len(done) == beam:
            break
    return sorted(done, key=lambda h: -h.score)


@pytest.mark.parametrize(("beam", "seed"), [(1, 0), (2, 1), (3, 2), (5, 3)])
def test_every_beam_is_fairseqs_search(beam: int, seed: int) -> None:
    """Items end at different steps, so that items are dropped and hypotheses change places."""
    model = small(9, seed, spread=1.5)
    x_BTD, lengths_B = features(4)
    found = model.beam_search(x_BTD, lengths_B, beam=beam, max_len=12)
    for b, n in enumerate(lengths_B.tolist()):
        assert found[b] == plain_search(model, x_BTD[b : b + 1, :n], beam, 12)[0].tokens
    alone = model.beam_search(x_BTD[1:2, :9], None, beam=beam, max_len=12)
    assert alone == [found[1]]


def test_a_beam_of_one_is_greedy() -> None:
    model = small(9, 4, spread=1.0)
    x_BTD, lengths_B = features(4)
    found = model.beam_search(x_BTD, lengths_B, beam=1, max_len=15)
    assert len({len(tokens) for tokens in found}) > 1
    for b, n in enumerate(lengths_B.tolist()):
        tokens: list[int] = []
        while len(tokens) < 15:
            logs_V = log_probabilities(model, x_BTD[b : b + 1, :n], tokens)[-1].clone()
            logs_V[PAD] = -math.inf
            if not tokens:
                logs_V[EOS] = -math.inf
            if int(logs_V.argmax()) == EOS:
                break
            tokens.append(int(logs_V.argmax()))
        assert found[b] == tokens


class Table:
    """A decoder whose next symbol depends on the last one only; any number of hypotheses."""

    def __init__(self, probabilities: list[list[float]]) -> None:
        self.logs = torch.tensor(probabilities).log()

    def step(self, tokens_BK: Tensor) -> Tensor:
        return self.logs[tokens_BK]

    def select(self, items_b: Tensor, parents_bK: Tensor) -> None:
        assert parents_bK.shape[0] == len(items_b)


def test_scores_worked_by_hand() -> None:
    """Symbols: a 0, pad 1, eos 2, b 3.

    From the start: a 0.6, b 0.4. After a: a 0.5, eos 0.2, b 0.3. After b: eos 0.9, a 0.1.
    """
    table = Table(
        [[0.5, 0.0, 0.2, 0.3], [1.0, 0, 0, 0], [0.6, 0.0, 0.0, 0.4], [0.1, 0.0, 0.9, 0.0]]
    )
    options: dict[str, Any] = {"batch": 2, "eos": 2, "pad": 1, "max_len": 3}
    (first, second) = beam_search(table, beam=2, **options)
    assert first == second
    assert [h.tokens for h in first] == [[3], [0, 3]]
    assert first[0].score == pytest.approx(math.log(0.4 * 0.9) / 2)
    assert first[1].score == pytest.approx(math.log(0.6 * 0.3 * 0.9) / 3)
    (greedy, _) = beam_search(table, beam=1, **options)
    assert [h.tokens for h in greedy] == [[0, 0, 0]]  # the end is forced
    assert greedy[0].score == pytest.approx(math.log(0.6 * 0.5 * 0.5 * 0.2) / 4)


def test_searches_that_cannot_be_are_refused() -> None:
    options: dict[str, Any] = {"batch": 1, "eos": 2, "pad": 1}
    fair = Table([[0.25] * 4] * 4)
    with pytest.raises(ValueError, match="got beam 0, min_len 1, max_len 3"):
        beam_search(fair, beam=0, max_len=3, **options)
    with pytest.raises(ValueError, match="max_len 0"):
        beam_search(fair, beam=1, max_len=0, **options)
    with pytest.raises(ValueError, match="NaN: its weights have diverged"):
        beam_search(Table([[math.nan] * 4] * 4), beam=1, max_len=3, **options)
    with pytest.raises(ValueError, match="no hypothesis has a probability above 0"):
        beam_search(Table([[0.0, 0.0, 1.0, 0.0]] * 4), beam=1, max_len=3, **options)


def test_bad_options_are_refused() -> None:
    for options, message in (
        ({"width": 7}, "even and at least 4"),
        ({"conv_channels": 9}, "conv_channels even"),
        ({"heads": 3}, "3 heads do not divide a width of 8"),
        ({"decoder_layers": 0}, "need a layer"),
        ({"pad": 2}, "pad 2 and eos 2"),
        ({"symbols": 2}, "at least 3 symbols, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            small(**options)
    with pytest.raises(ValueError, match="expected targets \\(3, U\\), got shape \\(2, 4\\)"):
        small()(features()[0], None, torch.zeros(2, 4, dtype=torch.long))


def test_it_starts_as_fairseq_does() -> None:
    model = small(200, width=32)
    assert float(model.embedding.weight.detach().std()) == pytest.approx(32**-0.5, rel=0.05)
    assert float(model.classifier.weight.detach().std()) == pytest.approx(32**-0.5, rel=0.05)
    assert model.embedding.weight[PAD].abs().max() == 0
    bound = math.sqrt(6 / 64) / math.sqrt(2)
    query = model.state_dict()["encoder.0.attention.query.weight"]
    assert float(query.abs().max()) == pytest.approx(bound, rel=0.02)
    assert model.state_dict()["encoder.0.attention.out.bias"].abs().max() == 0


def test_it_learns_to_translate_three_utterances() -> None:
    model = small(9, width=16, inner=32, dropout=0.0).train()
    x_BTD, lengths_B = features()
    targets = [[3, 4, 5, 3], [6], [7, 8]]
    previous, answers = teacher_forcing(targets)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        logits = model(x_BTD, lengths_B, previous)
        loss = F.cross_entropy(logits.flatten(0, 1), answers.flatten(), ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert model.beam_search(x_BTD, lengths_B, beam=4, max_len=10) == targets
