"""vq-wav2vec: codes, features, loss and gradients equal to fairseq's, for both quantisers."""

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
from mynah.upstream.core.deep_gumbel import DeepGumbel
from mynah.upstream.core.future import draw_others
from mynah.upstream.core.gumbel import gumbel_noise
from mynah.upstream.interop import s3prl
from mynah.upstream.vq_wav2vec import CONFIGS, Config, VqWav2Vec

SMALL: dict[str, Any] = {
    "channels": 24, "context_kernels": (2, 3, 5), "steps": 4, "negatives": 5, "codes": 7,
}  # fmt: skip
GUMBEL = Config(**SMALL)
KMEANS = Config(**SMALL, quantizer="kmeans", shared=False, commitment=0.3)
FLAT = Config(
    **SMALL, shared=False, depth=1, activation="relu", log_compression=False, groups=3
)  # fmt: skip
SHARED = Config(**SMALL, quantizer="kmeans", groups=4)
ALL = {"gumbel": GUMBEL, "kmeans": KMEANS, "gumbel, other settings": FLAT, "kmeans, shared": SHARED}


def each(configs: dict[str, Config]) -> Any:
    return pytest.mark.parametrize("config", configs.values(), ids=configs)


def fairseq_settings(config: Config) -> dict[str, Any]:
    width = config.channels
    extractor = [(width, k, s) for k, s in zip(config.kernels, config.strides, strict=True)]
    return {
        "infonce": False,
        "prediction_steps": config.steps,
        "num_negatives": config.negatives,
        "conv_feature_layers": str(extractor),
        "conv_aggregator_layers": str([(width, k, 1) for k in config.context_kernels]),
        "log_compression": config.log_compression,
        "activation": config.activation,
        "vq_type": config.quantizer,
        "vq_vars": config.codes,
        "vq_groups": config.groups,
        "vq_depth": config.depth,
        "combine_groups": config.shared,
        "vq_temp": "(2.0, 0.5, 0.999995)",
        "vq_gamma": config.commitment,
    }


def reference(settings: dict[str, Any]) -> Any:
    """s3prl's copy of fairseq's model, with weights as after training."""
    s3prl.ensure_importable()
    from s3prl.upstream.wav2vec.wav2vec_model import Wav2VecConfig, Wav2VecModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = Wav2VecModel(Wav2VecConfig(**settings))
        for p in theirs.parameters():  # codes far apart, too, so that many are in use
            p.data += (0.5 if p.ndim == 3 and len(p) < 8 else 0.1) * torch.randn_like(p)
    return theirs.eval()


def saved(folder: Path, settings: dict[str, Any], theirs: Any) -> Path:
    path = folder / "model.pt"
    content = {"task_cfg": {"normalize": False}, "model_cfg": settings}
    torch.save({**content, "model_weight": theirs.state_dict()}, path)
    return path


def force_others(theirs: Any, others_BTN: Tensor) -> None:
    """Let the reference use given negatives: it wants them as (N, B, C, T)."""

    def given(y_BCT: Tensor) -> Tensor:
        rows = torch.arange(len(y_BCT))[:, None, None]
        return y_BCT.transpose(1, 2)[rows, others_BTN].permute(2, 0, 3, 1)

    theirs.wav2vec_predictions.sample_negatives = given


def share_noise(monkeypatch: pytest.MonkeyPatch, seed: int) -> torch.Generator:
    """Let the reference draw its Gumbel noise as ours does; return our generator."""
    generator = torch.Generator().manual_seed(seed)

    def softmax(logits: Tensor, tau: float, hard: bool) -> Tensor:
        assert hard
        drawn = gumbel_noise(tuple(logits.shape), generator=generator)
        soft = ((logits + drawn) / tau).softmax(dim=-1)
        choice = F.one_hot(soft.argmax(dim=-1), logits.shape[-1]).to(soft.dtype)
        return choice - soft.detach() + soft

    monkeypatch.setattr(F, "gumbel_softmax", softmax)
    return torch.Generator().manual_seed(seed)


def their_loss(theirs: Any, wavs: list[Tensor], weight: float) -> tuple[Tensor, dict[str, Any]]:
    """fairseq's criterion: the sum over logits, divided by the number of positives."""
    found = theirs(torch.stack(wavs))
    logits, wanted = theirs.get_logits(found), theirs.get_targets(None, found)
    loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / wanted.sum()
    return loss + weight * theirs.get_extra_losses(found), found


# -- the reference ------------------------------------------------------------------------------


@each(ALL)
def test_codes_and_states_equal_the_reference(tmp_path: Path, config: Config) -> None:
    settings = fairseq_settings(config)
    path = saved(tmp_path, settings, reference(settings))
    from s3prl.upstream.vq_wav2vec.expert import UpstreamExpert

    ours = spec.load(f"fairseq:{path}")
    assert isinstance(ours, VqWav2Vec)
    unused = {"depth": config.depth, "commitment": config.commitment}
    assert ours.config == dataclasses.replace(config, **unused)
    theirs = UpstreamExpert(str(path)).eval()
    wavs = noise(16000)
    with torch.no_grad():
        found = theirs(wavs)
    assert torch.equal(ours.codes(wavs)[0], found["codeids"][0])
    assert len(found["codeids"].unique()) > 4
    for got, want in zip(ours.hidden_states(wavs), found["hidden_states"], strict=True):
        assert relative(got, want[0]) < 1e-5


@each(ALL)
def test_loss_and_gradients_equal_the_reference(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = fairseq_settings(config)
    theirs = reference(settings).train()
    ours = s3prl.convert(saved(tmp_path, settings, theirs)).train()
    assert isinstance(ours, VqWav2Vec)
    weight = 0.7
    codes = config.codes * config.groups  # theirs is not divided by their number
    changed = {"diversity_weight": weight * codes, "kmeans_weight": weight}
    ours.config = dataclasses.replace(ours.config, **changed)
    wavs = noise(9000, 9000, seed=4)
    counts = [ours.num_frames(9000)] * 2
    others_BTN = draw_others(counts, config.negatives, generator=torch.Generator().manual_seed(2))
    force_others(theirs, others_BTN)
    generator = share_noise(monkeypatch, seed=5)
    wanted, found = their_loss(theirs, wavs, weight)
    loss = ours.predict(wavs, others_BTN, generator=generator)
    assert float(loss.total.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert float(loss.parts["code_perplexity"]) == pytest.approx(
        float(found["code_perplexity"]), rel=1e-4
    )
    wanted.backward()
    loss.total.backward()
    pairs = {"coder.extractor.layers.2.conv.weight": "feature_extractor.conv_layers.2.0.weight"}
    if config.quantizer == "kmeans":
        pairs["coder.quantizer.proj.weight"] = "vector_quantizer.projection.0.weight"
    elif config.depth == 2:
        pairs["coder.quantizer.hidden.0.weight"] = "vector_quantizer.weight_proj.0.0.weight"
    for own, name in pairs.items():
        assert relative(ours.get_parameter(own).grad, theirs.get_parameter(name).grad) < 1e-4
    got = ours.coder.quantizer.vectors_GVC.grad
    assert got is not None
    if config.quantizer == "kmeans":
        want = theirs.vector_quantizer.embedding.grad.transpose(0, 1)
    else:
        want = theirs.vector_quantizer.vars.grad.reshape(got.shape)
    assert relative(got, want) < 1e-4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"vq_dim": 12}, "vq_dim must be the width"),
        ({"vq_type": "none"}, "vq_type is 'none'"),
        ({"vq_vars": 8}, "does not fit"),
        ({"vq_type": "kmeans"}, "does not fit"),
    ],
)
def test_what_ours_lacks_is_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    settings = fairseq_settings(GUMBEL)
    path = saved(tmp_path, {**settings, **changed}, reference(settings))
    with pytest.raises(ValueError, match=message):
        spec.load(f"fairseq:{path}")


# -- frozen features ----------------------------------------------------------------------------


def build(config: Config, seed: int = 0) -> VqWav2Vec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VqWav2Vec(config)
        for p in model.parameters():
            p.data += 0.1 * torch.randn_like(p)
    return model


@each({**ALL, "mel": CONFIGS["tiny"], "mel, kmeans": CONFIGS["tiny-kmeans"]})
def test_an_utterance_does_not_see_its_neighbours(config: Config) -> None:
    model = build(config).freeze()
    wavs = noise(1, 464, 465, 625, 8000, 4321, 20000)
    frames = [model.num_frames(len(wav)) for wav in wavs]
    together = list(model.hidden_states(wavs))
    assert len(together) == model.num_layers
    codes = model.codes(wavs)
    for index, wav in enumerate(wavs):
        assert torch.equal(codes[index], model.codes([wav])[0])
        assert codes[index].shape == (frames[index], config.groups)
        for layer, alone in zip(together, model.hidden_states([wav]), strict=True):
            assert torch.equal(layer.split(frames)[index], alone)


def test_the_published_sizes() -> None:
    for name, size in (("vq_wav2vec/base", 34_063_488), ("vq_wav2vec/kmeans", 33_014_272)):
        with torch.device("meta"):
            model = mynah.upstream.build(name)
        assert (model.dim, model.num_layers, model.stride) == (512, 13, 160)
        assert sum(p.numel() for p in model.parameters()) == size


@pytest.mark.usefixtures("bfloat16_products")
@each({"gumbel": GUMBEL, "kmeans": KMEANS})
def test_bf16_leaves_the_codes_alone(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    wavs = noise(8000, 3000)
    first, *exact = build(config).freeze().hidden_states(wavs)
    monkeypatch.setattr(packed_linear, "cpu_multiplies_bf16", lambda: True)
    same, *rough = build(config).freeze("bf16").hidden_states(wavs)
    assert torch.equal(first, same)
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == torch.float32
        assert 1e-4 < relative(a, b) < 3e-2


def test_packed_weights_follow_the_model() -> None:
    wavs = noise(5000)
    one, other = build(GUMBEL, seed=1).freeze(), build(GUMBEL, seed=2).freeze()
    twin = copy.deepcopy(one)
    one.load_state_dict(other.state_dict())
    again: VqWav2Vec = pickle.loads(pickle.dumps(one))
    *_, a = one.hidden_states(wavs)
    *_, b = other.hidden_states(wavs)
    *_, c = twin.hidden_states(wavs)
    *_, d = again.hidden_states(wavs)
    assert torch.equal(a, b)
    assert torch.equal(a, d)
    assert not torch.allclose(a, c)


# -- quantisers ---------------------------------------------------------------------------------


def test_a_quantiser_of_one_code_is_below_the_floor() -> None:
    for config in (CONFIGS["tiny"], CONFIGS["tiny-kmeans"]):
        model = build(config).train()
        healthy = model.loss(batch(16000)).parts["code_perplexity"]
        assert float(healthy) > model.floors["code_perplexity"]
        with torch.no_grad():
            quantizer = model.coder.quantizer
            if isinstance(quantizer, DeepGumbel):
                quantizer.logits.bias[::32] += 1000
            else:
                quantizer.vectors_GVC[:, 1:] += 1000
        collapsed = model.loss(batch(16000)).parts["code_perplexity"]
        assert float(collapsed) == pytest.approx(2.0)
        assert float(collapsed) < model.floors["code_perplexity"]


def test_temperature_follows_the_schedule() -> None:
    base, tiny = build(GUMBEL), build(CONFIGS["tiny"])
    for model, step, total, expected in (
        (base, 1000, 400000, 2 * 0.999995**1000),
        (base, 400000, 400000, 0.5),
        (tiny, 50, 100, 1.0),
        (tiny, 100, 100, 0.5),
    ):
        model.after_step(step, total)
        assert float(model.state_dict()["coder.quantizer.temperature"]) == pytest.approx(expected)
    build(KMEANS).after_step(1, 2)


@each({"gumbel": CONFIGS["tiny"], "kmeans": CONFIGS["tiny-kmeans"]})
def test_every_weight_learns_and_draws_are_from_the_generator(config: Config) -> None:
    model = build(config).train()
    one, two = (model.loss(batch(16000, 12000, 3000)) for _ in range(2))
    assert torch.equal(one.total, two.total)
    one.total.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    term, weight = ("diversity", 0.2) if config.quantizer == "gumbel" else ("kmeans", 1.0)
    assert float(one.total.detach()) == pytest.approx(
        float(one.parts["nce"] + weight * one.parts[term]), rel=1e-6
    )


def test_padding_does_not_enter_the_loss() -> None:
    model = build(KMEANS).eval()
    wavs = noise(9000, 4000)
    counts = [model.num_frames(len(wav)) for wav in wavs]
    others = draw_others(counts, 5, generator=torch.Generator().manual_seed(0))
    both = model.predict(wavs, others, generator=None)
    one = [
        model.predict([wav], others[row : row + 1, :n], generator=None)
        for row, (wav, n) in enumerate(zip(wavs, counts, strict=True))
    ]
    for name, weights in (("nce", [x.weight for x in one]), ("kmeans", counts)):
        mean = sum(float(x.parts[name]) * w for x, w in zip(one, weights, strict=True))
        assert float(both.parts[name]) == pytest.approx(mean / sum(weights), rel=1e-5)


# -- bad input ----------------------------------------------------------------------------------


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="quantizer must be 'gumbel' or 'kmeans', got 'ema'"):
        VqWav2Vec(dataclasses.replace(GUMBEL, quantizer="ema"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="channels a multiple of groups"):
        VqWav2Vec(dataclasses.replace(KMEANS, groups=5))
    with pytest.raises(ValueError, match="must be positive .* patience=0"):
        VqWav2Vec(dataclasses.replace(KMEANS, patience=0))
    with pytest.raises(ValueError, match="needs a generator"):
        build(GUMBEL).train().predict(noise(9000), torch.zeros(1, 54, 5).long(), generator=None)
