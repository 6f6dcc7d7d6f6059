"""CPC: independent of padding, and its objective against explicit float64 formulas."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from cpc_small import LENGTHS, MICRO, make, relative
from padded import batch, waves

from mynah.upstream.core import cpc_encoder
from mynah.upstream.core.clauses import check
from mynah.upstream.core.cpc_predictors import CausalLayer, LinearPredictors
from mynah.upstream.core.infonce import draw_negatives, info_nce
from mynah.upstream.cpc import CONFIGS, Cpc

# -- lengths and padding ----------------------------------------------------------------------------


def test_the_contract_on_waveforms() -> None:
    config = dataclasses.replace(MICRO, norm="batch", channels=16)
    found = {clause.name: clause.status for clause in check(make(config))}
    assert set(found.values()) <= {"PASS", "SKIP"}
    assert {name for name, status in found.items() if status == "SKIP"} <= {"bf16"}


def test_number_of_frames_follows_from_the_convolutions() -> None:
    encoder = cpc_encoder.WaveEncoder(2, norm="channel")
    for n in [*range(159, 1700, 7), *LENGTHS[1:]]:
        frames = encoder([torch.zeros(n)])[0].shape[1]
        assert encoder.num_frames(n) == max(1, (n + 1) // 160) == frames
    assert make(MICRO).num_frames(16000) == 100
    with pytest.raises(ValueError, match="at least one sample"):
        make(MICRO).num_frames(0)


@pytest.mark.parametrize("norm", ["channel", "batch"])
def test_chunks_of_the_packed_encoder_meet(norm: Any) -> None:
    encoder = cpc_encoder.WaveEncoder(8, norm=norm).eval()
    with torch.no_grad():
        for part in encoder.norms:
            for tensor in part.state_dict().values():
                tensor += torch.rand_like(tensor) if tensor.is_floating_point() else 0
    (wav,) = waves(batch(40007))  # 250 frames: three chunks
    packed = encoder.packed(torch.float32)([wav])
    assert packed.shape == (250, 8)
    assert relative(packed, encoder([wav])[0][0]) < 1e-6


@pytest.mark.parametrize("front", ["wave", "mel"])
def test_training_encodes_an_utterance_as_if_it_were_alone(front: Any) -> None:
    model = make(dataclasses.replace(MICRO, front=front))
    wavs = waves(batch(3000, 700, 5000, 100))
    together, counts = model.encoder(wavs)
    for row, wav in enumerate(wavs):
        alone = model.encoder([wav])[0][0]
        assert len(alone) == counts[row] == model.num_frames(len(wav))
        assert relative(together[row, : counts[row]], alone) < 1e-5
        assert not together[row, counts[row] :].any()


def test_batch_norm_counts_true_frames_only() -> None:
    model = make(dataclasses.replace(MICRO, norm="batch"))
    first, norm = model.encoder.convs[0], model.encoder.norms[0]  # type: ignore[union-attr]
    wavs = waves(batch(3000, 700, 5000))
    model.encoder(wavs)
    frames = torch.cat([first(wav[None]).T for wav in wavs])
    assert relative(norm.running_mean, 0.1 * frames.mean(0)) < 1e-4
    assert relative(norm.running_var - 0.9, 0.1 * frames.var(0)) < 1e-4


# -- objective --------------------------------------------------------------------------------------


def formula(
    pred: list[Tensor], z: list[Tensor], negatives_AM: Tensor, steps: int
) -> tuple[float, list[float]]:
    """Return loss and accuracy of each step by the definition, in float64, frame by frame.

    Args:
        pred: for each utterance, predictions (K, anchors, D).
        z: for each utterance, frames (T, D).
        negatives_AM: indices into all frames.
        steps: K.
    """
    pool = torch.cat(z).detach().double()
    dim = pool.shape[1]
    losses: list[float] = []
    right = [0] * steps
    anchor = start = 0
    for pred_KAD, z_TD in zip(pred, z, strict=True):
        for t in range(len(z_TD) - steps):
            for k in range(1, steps + 1):
                p = pred_KAD[k - 1, t].detach().double()
                true = float(p @ pool[start + t + k]) / dim
                drawn = [int(i) for i in negatives_AM[anchor] if int(i) != start + t + k]
                others = [float(p @ pool[i]) / dim for i in drawn]
                total = math.exp(true) + sum(math.exp(s) for s in others)
                losses.append(-math.log(math.exp(true) / total))
                right[k - 1] += all(true > s for s in others)
            anchor += 1
        start += len(z_TD)
    return sum(losses) / len(losses), [count / anchor for count in right]


@pytest.mark.parametrize("predictor", ["linear", "transformer"])
@pytest.mark.parametrize("scope", ["batch", "utterance"])
def test_loss_follows_the_formula(scope: Any, predictor: Any) -> None:
    config = dataclasses.replace(MICRO, negatives_from=scope, predictor=predictor)
    model, given = make(config), batch(2000, 700, 1300, 600)  # the last has 3 frames: left out
    with torch.no_grad():  # scores that tell frames apart
        model.encoder.norms[-1].weight.mul_(5.0)
    wavs = waves(given)[:3]
    counts = [12, 4, 8]
    assert [model.num_frames(len(wav)) for wav in wavs] == counts
    negatives_AM = draw_negatives(
        counts, steps=3, n=5, scope=scope, generator=torch.Generator().manual_seed(2)
    )
    z = [model.encoder([wav])[0] for wav in wavs]
    pred = [model.predictors(model.context(z_1TD)[0][:, :-3])[:, 0] for z_1TD in z]
    expected, right = formula(pred, [z_1TD[0] for z_1TD in z], negatives_AM, 3)
    loss = model.loss(given)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    assert loss.parts["accuracy"].item() == pytest.approx(sum(right) / 3)
    assert loss.parts["accuracy_first"].item() == pytest.approx(right[0])
    assert loss.parts["accuracy_last"].item() == pytest.approx(right[2])
    assert loss.parts["chance"].item() == pytest.approx(math.log(6))
    assert loss.weight == sum(counts) - 9
    assert model.floors["accuracy"] == pytest.approx(2 / 6)


def test_a_negative_that_is_the_true_frame_does_not_count() -> None:
    z_ND = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pred_KAD = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
    negatives_AM = torch.tensor([[1, 1], [2, 4], [3, 3]])
    task = info_nce(pred_KAD, z_ND, negatives_AM=negatives_AM, counts=[5], scope="utterance")
    expected, right = formula([pred_KAD], [z_ND.detach()], negatives_AM, 2)
    assert task.loss.item() == pytest.approx(expected, rel=1e-5)
    assert task.accuracy_K.tolist() == pytest.approx(right)
    task.loss.backward()
    assert z_ND.grad is not None
    assert z_ND.grad.isfinite().all()


@pytest.mark.parametrize("scope", ["batch", "utterance"])
def test_negatives_are_uniform_over_the_other_places(scope: Any) -> None:
    counts, steps, n = [6, 6, 6], 2, 4000
    drawn = draw_negatives(
        counts, steps=steps, n=n, scope=scope, generator=torch.Generator().manual_seed(0)
    )
    assert drawn.shape == (12, n)
    for anchor, row in enumerate(drawn):
        own, place = divmod(anchor, 4)
        seen = row.bincount(minlength=18).reshape(3, 6)
        assert not seen[:, place].any()
        if scope == "utterance":
            assert seen[own].sum() == n
        share = seen[own] / (n if scope == "utterance" else n / 3)
        others = [i for i in range(6) if i != place]
        assert share[others].numpy() == pytest.approx(0.2, abs=0.05)


def test_negatives_of_unequal_utterances_stay_inside_them() -> None:
    drawn = draw_negatives(
        [4, 9, 5], steps=3, n=300, scope="utterance", generator=torch.Generator().manual_seed(0)
    )
    owner = [0] + [1] * 6 + [2] * 2
    edges = [(0, 4), (4, 13), (13, 18)]
    for row, own in zip(drawn, owner, strict=True):
        low, high = edges[own]
        assert set(row.tolist()) <= set(range(low, high))
        assert len(set(row.tolist())) == high - low - 1  # all but the anchor's own


def test_a_transformer_predictor_follows_its_formula_and_sees_no_future() -> None:
    torch.manual_seed(0)
    layer = CausalLayer(12, heads=3, ffn=16, dropout=0.0, distances=4)
    x_TD = torch.randn(7, 12)
    got_TD = layer(x_TD[None])[0]
    q, k, v = (part(x_TD).double() for part in (layer.q, layer.k, layer.v))
    mixed = torch.zeros(7, 12, dtype=torch.float64)
    for head in range(3):
        own = slice(4 * head, 4 * head + 4)
        for i in range(7):
            scores = [
                q[i, own] @ (k[j, own] + layer.position_LE[min(i - j, 3)].double()) / 2
                for j in range(i + 1)
            ]
            mixed[i, own] = torch.stack(scores).softmax(0) @ v[: i + 1, own]
    y = layer.norm1(x_TD + layer.o(mixed.float()))
    expected = layer.norm2(y + layer.ff2(layer.ff1(y).relu()))
    assert relative(got_TD, expected) < 1e-5
    changed = torch.cat([x_TD[:5], torch.randn(2, 12)])
    assert torch.allclose(layer(changed[None])[0, :5], got_TD[:5], atol=1e-6)


def test_linear_predictors_start_as_in_cpc_audio() -> None:
    torch.manual_seed(0)
    wide = LinearPredictors(12, 64, 128).weight.unflatten(0, (12, 128))
    assert wide[:, :64].std().item() == pytest.approx(1.0, rel=0.02)
    assert wide[:, 64:].std().item() == pytest.approx(0.01, rel=0.02)
    assert LinearPredictors(12, 64, 32).weight.std().item() == pytest.approx(1.0, rel=0.02)
    c_BTH = torch.randn(2, 5, 64)
    layer = LinearPredictors(3, 64, 8)
    assert torch.allclose(layer(c_BTH)[1], c_BTH @ layer.weight[8:16].T, atol=1e-6)


# -- sizes and bad input ----------------------------------------------------------------------------


def test_published_sizes() -> None:
    with torch.device("meta"):
        modified, base = Cpc(CONFIGS["modified"]), Cpc(CONFIGS["base"])
    own = [p for part in (modified.encoder, modified.context) for p in part.parameters()]
    assert sum(p.numel() for p in own) == 1_843_456  # SUPERB: 1.84 M
    assert (modified.dim, modified.num_layers, modified.stride) == (256, 2, 160)
    assert (base.dim, base.config.width, base.num_layers) == (512, 256, 2)
    assert base.predictors.weight.shape == (12 * 512, 256)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"front": "fft"}, "front"),
        ({"norm": "group"}, "norm"),
        ({"context": "rnn"}, "context"),
        ({"predictor": "mlp"}, "predictor"),
        ({"predictor": "transformer", "width": 6}, "as wide as"),
        ({"predictor": "transformer", "predictor_heads": 5}, "predictor_heads"),
        ({"steps": 0}, "steps"),
        ({"front": "mel", "mel_layers": 0}, "mel_layers"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Cpc(dataclasses.replace(MICRO, **change))


def test_draws_that_cannot_be_are_refused() -> None:
    options: dict[str, Any] = {"steps": 3, "n": 2, "scope": "batch", "generator": torch.Generator()}
    for change, counts, said in (
        ({"n": 0}, [9], "at least 1"),
        ({"scope": "world"}, [9], "negatives_from"),
        ({}, [9, 3], "more than 3 frames"),
        ({}, [], "more than 3 frames"),
    ):
        with pytest.raises(ValueError, match=said):
            draw_negatives(counts, **{**options, **change})
    with pytest.raises(ValueError, match="belong together"):
        info_nce(
            torch.zeros(3, 5, 4), torch.zeros(9, 4), negatives_AM=torch.zeros(6, 2).long(),
            counts=[9], scope="batch",
        )  # fmt: skip


def test_a_batch_without_an_anchor_is_refused() -> None:
    with pytest.raises(ValueError, match="utt0"):
        make(MICRO).loss(batch(600, 100))
