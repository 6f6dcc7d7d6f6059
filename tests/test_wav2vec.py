"""wav2vec: features, loss and gradients equal to fairseq's; alone or in a batch, the same."""

import argparse
import copy
import dataclasses
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from waveforms import batch, noise, relative

import mynah.upstream
from mynah.upstream.core import packed_linear, spec
from mynah.upstream.core.aggregator import Aggregator, Extractor
from mynah.upstream.core.future import FuturePredictor, draw_others
from mynah.upstream.interop import s3prl
from mynah.upstream.wav2vec import CONFIGS, Config, Wav2Vec

SMALL: dict[str, Any] = {"channels": 24, "context_kernels": (2, 3, 5), "steps": 4, "negatives": 5}
WAVE = Config(**SMALL)
GELU = Config(
    **SMALL, activation="gelu", log_compression=False, zero_pad=True, skip=False, offset=2
)
LENGTHS = [1, 464, 465, 624, 625, 626, 8000, 4321, 20000]


def fairseq_settings(config: Config) -> dict[str, Any]:
    width = config.channels
    extractor = [(width, k, s) for k, s in zip(config.kernels, config.strides, strict=True)]
    return {
        "infonce": False,
        "prediction_steps": config.steps,
        "num_negatives": config.negatives,
        "conv_feature_layers": str(extractor),
        "conv_aggregator_layers": str([(width, k, 1) for k in config.context_kernels]),
        "agg_zero_pad": config.zero_pad,
        "skip_connections_agg": config.skip,
        "residual_scale": config.residual_scale,
        "log_compression": config.log_compression,
        "activation": config.activation,
        "offset": "auto" if config.offset is None else str(config.offset),
        "vq_type": "none",
    }


def reference(settings: dict[str, Any]) -> Any:
    """s3prl's copy of fairseq's model, with weights as after training."""
    s3prl.ensure_importable()
    from s3prl.upstream.wav2vec.wav2vec_model import Wav2VecConfig, Wav2VecModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = Wav2VecModel(Wav2VecConfig(**settings))
        for name, p in theirs.named_parameters():
            if "quantizer" not in name:  # no unit gains and zero biases that hide a swap
                p.data += 0.1 * torch.randn_like(p)
    return theirs.eval()


def saved(folder: Path, settings: dict[str, Any], theirs: Any) -> Path:
    """The checkpoint in the form that s3prl gives it."""
    path = folder / "model.pt"
    content = {"task_cfg": {"normalize": False}, "model_cfg": settings}
    torch.save({**content, "model_weight": theirs.state_dict()}, path)
    return path


def their_states(theirs: Any, wav: Tensor) -> list[Tensor]:
    """z and the output of each aggregator layer, as s3prl's hooks see them."""
    seen: list[Tensor] = []
    layers = theirs.feature_aggregator.conv_layers
    handles = [
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0][0].T))
        for layer in list(layers)[1:]
    ]
    with torch.no_grad():
        z_1CT = theirs.feature_extractor(wav[None])
        x_1CT = theirs.vector_quantizer(z_1CT)["x"] if theirs.vector_quantizer else z_1CT
        last = theirs.feature_aggregator(x_1CT)
    for handle in handles:
        handle.remove()
    return [z_1CT[0].T, *seen, last[0].T]


def force_others(theirs: Any, others_BTN: Tensor) -> None:
    """Let the reference use given negatives: it wants them as (N, B, C, T)."""

    def given(y_BCT: Tensor) -> Tensor:
        rows = torch.arange(len(y_BCT))[:, None, None]
        return y_BCT.transpose(1, 2)[rows, others_BTN].permute(2, 0, 3, 1)

    theirs.wav2vec_predictions.sample_negatives = given


def their_loss(theirs: Any, wavs: list[Tensor], *, weight: float = 0.0) -> Tensor:
    """fairseq's criterion: the sum over logits, divided by the number of positives."""
    found = theirs(torch.stack(wavs))
    logits, wanted = theirs.get_logits(found), theirs.get_targets(None, found)
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / wanted.sum()
    extra = theirs.get_extra_losses(found)
    return loss + weight * extra if weight else loss


# -- the reference ------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [WAVE, GELU], ids=["published", "other settings"])
def test_states_loss_and_gradients_equal_the_reference(tmp_path: Path, config: Config) -> None:
    settings = fairseq_settings(config)
    theirs = reference(settings)
    ours = s3prl.convert(saved(tmp_path, settings, theirs))
    assert isinstance(ours, Wav2Vec)
    assert ours.config == config
    for n in (465, 5000, 16000):
        (wav,) = noise(n)
        for got, want in zip(
            copy.deepcopy(ours).freeze().hidden_states([wav]),
            their_states(theirs, wav),
            strict=True,
        ):
            assert got.shape == want.shape
            assert relative(got, want) < 1e-5
    wavs = noise(9000, 9000, seed=4)
    counts = [ours.num_frames(9000)] * 2
    others_BTN = draw_others(counts, config.negatives, generator=torch.Generator().manual_seed(2))
    force_others(theirs, others_BTN)
    wanted, got = their_loss(theirs, wavs), ours.predict(wavs, others_BTN).total
    assert float(got.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    wanted.backward()
    got.backward()
    for key in ("extractor.layers.1.conv.weight", "aggregator.layers.2.norm.weight"):
        block = "extractor.conv_layers.1.0" if "extractor" in key else "aggregator.conv_layers.2.3"
        theirs_p = theirs.get_parameter(f"feature_{block}.weight")
        assert relative(ours.get_parameter(key).grad, theirs_p.grad) < 1e-4
    steps = theirs.wav2vec_predictions.project_to_steps
    maps = ours.predictor.weight_KDD.grad
    assert maps is not None
    assert relative(maps, steps.weight.grad[:, :, 0].permute(2, 1, 0)) < 1e-4
    assert relative(ours.predictor.bias_D.grad, steps.bias.grad) < 1e-4


def test_s3prl_s_own_upstream_has_the_same_states(tmp_path: Path) -> None:
    settings = fairseq_settings(WAVE)
    path = saved(tmp_path, settings, reference(settings))
    from s3prl.upstream.wav2vec.expert import UpstreamExpert

    ours, theirs = spec.load(f"s3prl:{path}"), UpstreamExpert(str(path)).eval()
    wavs = noise(8000)
    with torch.no_grad():
        found = theirs(wavs)
    for got, want in zip(ours.hidden_states(wavs), found["hidden_states"], strict=True):
        assert relative(got, want[0]) < 1e-5


def test_old_fairseq_checkpoints_are_read(tmp_path: Path) -> None:
    settings = fairseq_settings(WAVE)
    theirs = reference(settings)
    path = saved(tmp_path, settings, theirs)
    args = argparse.Namespace(arch="wav2vec", **settings)
    torch.save({"args": args, "model": theirs.state_dict()}, tmp_path / "old.pt")
    assert (
        spec.load(f"fairseq:{tmp_path / 'old.pt'}").fingerprint()
        == spec.load(f"fairseq:{path}").fingerprint()
    )


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"aggregator": "gru"}, "aggregator is 'gru'"),
        ({"conv_aggregator_layers": "[(24, 2, 1), (24, 3, 2), (24, 5, 1)]"}, "strides must be 1"),
        ({"conv_aggregator_layers": "[(24, 2, 1), (30, 3, 1), (24, 5, 1)]"}, "one width"),
        ({"prediction_steps": 6}, "does not fit"),
    ],
)
def test_what_ours_lacks_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    settings = fairseq_settings(WAVE)
    path = saved(tmp_path, {**settings, **changed}, reference(settings))
    with pytest.raises(ValueError, match=message):
        spec.load(f"fairseq:{path}")


# -- frozen features ----------------------------------------------------------------------------


def build(config: Config, seed: int = 0) -> Wav2Vec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Wav2Vec(config)
        for p in model.parameters():
            p.data += 0.05 * torch.randn_like(p)
    return model


@pytest.mark.parametrize("config", [WAVE, GELU, CONFIGS["tiny"]], ids=["wave", "gelu", "mel"])
def test_an_utterance_does_not_see_its_neighbours(config: Config) -> None:
    model = build(config).freeze()
    wavs = noise(*LENGTHS)
    frames = [model.num_frames(n) for n in LENGTHS]
    together = list(model.hidden_states(wavs))
    assert len(together) == model.num_layers == 1 + len(config.context_kernels)
    for index, wav in enumerate(wavs):
        for layer, alone in zip(together, model.hidden_states([wav]), strict=True):
            assert alone.shape == (frames[index], config.channels)
            assert torch.equal(layer.split(frames)[index], alone)


@pytest.mark.parametrize("config", [WAVE, GELU, CONFIGS["tiny"]], ids=["wave", "gelu", "mel"])
def test_packed_equals_the_training_forward_on_a_padded_batch(config: Config) -> None:
    model = build(config).eval()
    wavs = noise(4000, 9000, 9100, 300)
    with torch.no_grad():
        z_BTC, counts = model.extractor(wavs)
        valid_BT = torch.arange(z_BTC.shape[1]) < torch.tensor(counts)[:, None]
        c_BTC = model.aggregator(z_BTC, valid_BT)
    assert counts == [model.num_frames(len(wav)) for wav in wavs]
    first, *_, last = model.freeze().hidden_states(wavs)
    assert relative(first, z_BTC[valid_BT]) < 1e-5
    assert relative(last, c_BTC[valid_BT]) < 1e-5


def test_one_layer_and_a_layer_after_the_chunks() -> None:
    """The folded first layer alone, and an utterance of many chunks."""
    for kernels, strides in (((400,), (160,)), ((10, 8, 4), (5, 4, 8))):
        extractor = build(dataclasses.replace(WAVE, kernels=kernels, strides=strides)).eval()
        (wav,) = noise(100000)
        with torch.no_grad():
            want = extractor.extractor([wav])[0][0]
        assert relative(next(extractor.freeze().hidden_states([wav])), want) < 1e-5


def test_the_published_size() -> None:
    with torch.device("meta"):
        model = mynah.upstream.build("wav2vec/base")
    assert (model.dim, model.num_layers, model.stride) == (512, 13, 160)
    assert sum(p.numel() for p in model.parameters()) == 32_537_088
    assert model.num_frames(16000) == 98
    assert model.offset == 3  # type: ignore[comparison-overlap]
    assert model.config_dict()["context_kernels"] == tuple(range(2, 14))


@pytest.mark.usefixtures("bfloat16_products")
def test_bf16_is_close_and_is_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    wavs = noise(8000, 3000)
    exact = list(build(WAVE).freeze().hidden_states(wavs))
    monkeypatch.setattr(packed_linear, "cpu_multiplies_bf16", lambda: True)
    for a, b in zip(build(WAVE).freeze("bf16").hidden_states(wavs), exact, strict=True):
        assert a.dtype == torch.float32
        assert 1e-4 < relative(a, b) < 3e-2


def test_packed_weights_follow_the_model() -> None:
    wavs = noise(5000)
    one, other = build(WAVE, seed=1).freeze(), build(WAVE, seed=2).freeze()
    twin = copy.deepcopy(one)
    one.load_state_dict(other.state_dict())
    again: Wav2Vec = pickle.loads(pickle.dumps(one))
    *_, a = one.hidden_states(wavs)
    *_, b = other.hidden_states(wavs)
    *_, c = twin.hidden_states(wavs)
    *_, d = again.hidden_states(wavs)
    assert torch.equal(a, b)
    assert torch.equal(a, d)
    assert not torch.allclose(a, c)


# -- the objective ------------------------------------------------------------------------------


def test_padding_does_not_enter_the_loss() -> None:
    model = build(WAVE).eval()
    wavs = noise(9000, 4000)
    counts = [model.num_frames(len(wav)) for wav in wavs]
    others = draw_others(counts, 5, generator=torch.Generator().manual_seed(0))
    both = model.predict(wavs, others)
    one = [
        model.predict([wav], others[row : row + 1, :n])
        for row, (wav, n) in enumerate(zip(wavs, counts, strict=True))
    ]
    expected = sum(float(x.total.detach()) * x.weight for x in one) / sum(x.weight for x in one)
    assert float(both.total.detach()) == pytest.approx(expected, rel=1e-5)
    assert both.weight == sum(x.weight for x in one)


def test_every_weight_learns_and_draws_are_from_the_generator() -> None:
    model = build(CONFIGS["tiny"]).train()
    one, two = (model.loss(batch(16000, 12000, 3000)) for _ in range(2))
    assert torch.equal(one.total, two.total)
    assert not torch.equal(one.total, model.loss(batch(16000, 12000, 3000, seed=1)).total)
    one.total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert set(one.parts) == {"nce", "blind", "accuracy", "embedding_std"}
    assert float(one.parts["embedding_std"]) > 5 * model.floors["embedding_std"]


def test_frames_that_do_not_vary_are_below_the_floor() -> None:
    model = build(CONFIGS["tiny"])
    model.extractor.layers[-1].norm.weight.data.zero_()  # type: ignore[union-attr,operator]
    parts = model.loss(batch(16000)).parts
    assert float(parts["embedding_std"]) < model.floors["embedding_std"]


# -- bad input ----------------------------------------------------------------------------------


def test_utterances_too_short_to_predict_anything() -> None:
    model = build(WAVE)
    assert model.loss(batch(16000, 300)).weight > 0
    with pytest.raises(ValueError, match="at most 3 frames, too few to predict one 3 frames ahead"):
        model.loss(batch(900, 300))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="front must be 'wave' or 'mel', got 'fft'"):
        Extractor(8, (1,), (1,), front="fft")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="as many, got 2 and 1"):
        Extractor(8, (1, 1), (1,))
    with pytest.raises(ValueError, match="activation must be 'relu' or 'gelu', got 'elu'"):
        Aggregator(8, (2,), activation="elu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="offset must be at least 1"):
        build(dataclasses.replace(WAVE, offset=0)).loss(batch(5000))
    with pytest.raises(ValueError, match="at least one sample"):
        build(WAVE).num_frames(0)
    assert FuturePredictor(4, 3)(torch.zeros(2, 5, 4)).shape == (2, 5, 3, 4)
