"""CPC against s3prl's networks, and its objective against explicit float64 formulas."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mynah.upstream.core import cpc_encoder
from mynah.upstream.core.clauses import check
from mynah.upstream.core.contract import Batch
from mynah.upstream.core.cpc_predictors import CausalLayer, LinearPredictors
from mynah.upstream.core.framenorm import ChannelNorm
from mynah.upstream.core.infonce import draw_negatives, info_nce
from mynah.upstream.cpc import CONFIGS, Config, Cpc
from mynah.upstream.interop import s3prl
from mynah.upstream.interop.families import cpc as reader

MICRO = Config(
    channels=12, norm="channel", width=12, steps=3, negatives=5, predictor_heads=3,
    predictor_ffn=16, predictor_distances=4, dropout=0.0,
)  # fmt: skip
LENGTHS = (1, 158, 159, 160, 318, 319, 320, 479, 16000, 40007)


def make(config: Config, seed: int = 0) -> Cpc:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Cpc(config)


def batch(*sizes: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    wav_BS = torch.zeros(len(sizes), max(sizes))
    for row, n in zip(wav_BS, sizes, strict=True):
        row[:n] = 0.1 * torch.randn(n, generator=generator)
    return Batch(
        wav_BS=wav_BS,
        lengths_B=torch.tensor(sizes),
        ids=tuple(f"utt{i}" for i in range(len(sizes))),
        generator=torch.Generator().manual_seed(2),
    )


def waves(given: Batch) -> list[Tensor]:
    return [wav[:n] for wav, n in zip(given.wav_BS, given.lengths_B.tolist(), strict=True)]


def relative(x: Tensor, reference: Tensor) -> float:
    x, reference = x.detach().double(), reference.detach().double()
    return float((x - reference).norm() / reference.norm())


# -- s3prl ----------------------------------------------------------------------------------------


def checkpoint(folder: Path, **settings: Any) -> tuple[Path, nn.Module]:
    """Return a checkpoint in s3prl's form, with norms as if trained, and s3prl's own model."""
    s3prl.ensure_importable()
    from s3prl.upstream.cpc.model import CPCAR, CPCEncoder, CPCModel

    config = {
        "hiddenEncoder": 24, "hiddenGar": 24, "normMode": "layerNorm", "arMode": "LSTM",
        "nLevelsGRU": 1, "encoder_type": "cpc", "cpc_mode": None, "samplingType": "samespeaker",
        "onEncoder": False, **settings,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = CPCEncoder(config["hiddenEncoder"], config["normMode"])
        context = CPCAR(
            config["hiddenEncoder"], config["hiddenGar"], False, config["nLevelsGRU"],
            mode=config["arMode"],
        )  # fmt: skip
        model = CPCModel(encoder, context).eval()
        for key, value in model.state_dict().items():
            if "batchNorm" in key and value.is_floating_point():
                value += 0.3 * torch.rand_like(value)
    path = folder / "cpc.pt"
    torch.save({"config": config, "weights": model.state_dict()}, path)
    return path, model


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normMode": "batchNorm", "arMode": "GRU", "hiddenGar": 16, "nLevelsGRU": 2},
    ],
)
def test_states_are_those_of_s3prl(tmp_path: Path, settings: dict[str, Any]) -> None:
    path, theirs = checkpoint(tmp_path, **settings)
    ours = s3prl.convert(path).freeze()
    assert (ours.name, ours.dim, ours.num_layers, ours.stride) == ("cpc", 24, 2, 160)
    wavs = waves(batch(*LENGTHS))
    counts = [ours.num_frames(n) for n in LENGTHS]
    states = [state.split(counts) for state in ours.hidden_states(wavs)]
    for index, wav in enumerate(wavs):
        padded = nn.functional.pad(wav, (0, max(0, 159 - len(wav))))
        with torch.no_grad():
            context, encoded, _ = theirs(padded[None, None], None)
        assert encoded.shape[1] == counts[index]
        assert relative(states[0][index], encoded[0]) < 1e-5
        width = context.shape[2]
        assert relative(states[1][index][:, :width], context[0]) < 1e-5
        assert not states[1][index][:, width:].any()


def test_s3prl_s_own_wrapper_has_the_same_states_in_the_same_order(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    from s3prl.upstream.cpc.expert import UpstreamExpert

    wav = waves(batch(8000))[0]
    with torch.no_grad():
        theirs = UpstreamExpert(str(path)).eval()([wav])["hidden_states"]
    for got, want in zip(s3prl.convert(path).hidden_states([wav]), theirs, strict=True):
        assert relative(got, want[0]) < 1e-5


def test_channel_norm_is_s3prl_s() -> None:
    s3prl.ensure_importable()
    from s3prl.upstream.cpc.model import ChannelNorm as Theirs

    theirs, ours = Theirs(7), ChannelNorm(7)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            mine.copy_(torch.randn(7))
            other.copy_(mine[None, :, None])
    x_BCT = torch.randn(2, 7, 5) * 1e-2
    assert relative(ours(x_BCT.transpose(1, 2)).transpose(1, 2), theirs(x_BCT)) < 1e-6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cpc_mode": "reverse"}, "cpc_mode"),
        ({"samplingType": "sequential"}, "samplingType"),
        ({"encoder_type": "lfb"}, "encoder_type"),
    ],
)
def test_settings_that_ours_lacks_are_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path, _ = checkpoint(tmp_path)
    content = torch.load(path, weights_only=True)
    with pytest.raises(ValueError, match=said):
        reader.s3prl({**content, "config": {**content["config"], **change}}, path)


def test_weights_that_s3prl_would_ignore_or_miss_are_named(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    content = torch.load(path, weights_only=True)
    weights = dict(content["weights"])
    weights["gEncoder.conv9.weight"] = torch.zeros(2)
    with pytest.raises(ValueError, match=r"gEncoder\.conv9\.weight"):
        reader.s3prl({**content, "weights": weights}, path)
    del weights["gEncoder.conv9.weight"], weights["gAR.baseNet.bias_ih_l0"]
    with pytest.raises(ValueError, match=r"gAR\.baseNet\.bias_ih_l0"):
        reader.s3prl({**content, "weights": weights}, path)
    assert reader.s3prl({"model": {}, "config": {}}, path) is None


def test_a_model_without_predictors_cannot_be_trained(tmp_path: Path) -> None:
    model = s3prl.convert(checkpoint(tmp_path)[0])
    with pytest.raises(ValueError, match="objective=False"):
        model.loss(batch(16000))


# -- lengths and padding ----------------------------------------------------------------------------


def test_the_contract_on_waveforms() -> None:
    config = dataclasses.replace(MICRO, norm="batch", channels=16)
    assert [clause for clause in check(make(config)) if clause.status != "PASS"] == []


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
