"""wav2vec 2.0: features equal to the references', independent of the batch, and a right objective."""

import copy
import dataclasses
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

import mynah.upstream
from mynah.upstream.core import packed_linear
from mynah.upstream.core.contract import Batch
from mynah.upstream.core.contrastive import sample_negatives
from mynah.upstream.core.masking import span_mask
from mynah.upstream.wav2vec2 import CONFIGS, Config, Wav2Vec2

SMALL: dict[str, Any] = {
    "conv_channels": 32,
    "dim": 64,
    "layers": 2,
    "heads": 4,
    "ffn": 128,
    "code_dim": 16,
    "final_dim": 24,
    "codes": 8,
    "negatives": 7,
}
POST = Config(**SMALL)
PRE = Config(**SMALL, conv_bias=True, conv_norm="layer", normalize=True, norm="pre")
LENGTHS = [1, 399, 400, 401, 719, 720, 721, 16000, 4321, 50000]


def build(config: Config, seed: int = 0) -> Wav2Vec2:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Wav2Vec2(config)
        for p in model.parameters():  # no unit gains and zero biases that hide a swap
            p.data += 0.05 * torch.randn_like(p)
    return model


def noise(*lengths: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [0.1 * torch.randn(n, generator=generator) for n in lengths]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def batch(*lengths: int, seed: int = 0) -> Batch:
    wavs = noise(*lengths, seed=seed)
    return Batch(
        wav_BS=torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True),
        lengths_B=torch.tensor(lengths),
        ids=tuple(str(n) for n in lengths),
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("config", [POST, PRE, CONFIGS["tiny"]], ids=["post", "pre", "mel"])
def test_an_utterance_does_not_see_its_neighbours(config: Config) -> None:
    model = build(config).freeze()
    wavs = noise(*LENGTHS)
    together = list(model.hidden_states(wavs))
    frames = [model.num_frames(n) for n in LENGTHS]
    assert len(together) == config.layers + 1
    for index, wav in enumerate(wavs):
        for layer, alone in zip(together, model.hidden_states([wav]), strict=True):
            assert alone.shape == (frames[index], config.dim)
            assert relative(layer.split(frames)[index], alone) < 1e-5


def test_an_empty_waveform_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        next(build(POST).freeze().hidden_states([torch.zeros(500), torch.zeros(0)]))


@pytest.mark.parametrize("config", [POST, PRE], ids=["post", "pre"])
def test_packed_equals_the_training_forward(config: Config) -> None:
    model = build(config).eval()
    wavs = noise(4000, 9000, 9000, 300)
    with torch.no_grad():
        raw, counts = model.frontend.raw(wavs)
        valid = torch.arange(raw.shape[1]) < torch.tensor(counts)[:, None]
        dense = model.encoder(model.frontend.proj(model.frontend.norm(raw)), valid)
    for packed, reference in zip(model.freeze().hidden_states(wavs), dense, strict=True):
        assert relative(packed, reference[valid]) < 1e-5


def test_long_utterances_and_many_blocks() -> None:
    model = build(POST).freeze()
    wavs = noise(16000 * 25, *[2000] * 150, 16000 * 30)
    frames = [model.num_frames(len(wav)) for wav in wavs]
    states = list(model.hidden_states(wavs))
    for index in (0, 1, 77, 151):
        *_, alone = model.hidden_states([wavs[index]])
        assert relative(states[-1].split(frames)[index], alone) < 1e-5


@pytest.mark.parametrize(("config", "bias"), [(POST, False), (PRE, True)], ids=["post", "pre"])
def test_equals_torchaudio(config: Config, bias: bool) -> None:
    import torchaudio

    model = build(dataclasses.replace(config, normalize=False))
    theirs = torchaudio.models.wav2vec2_model(
        extractor_mode="layer_norm" if config.conv_norm == "layer" else "group_norm",
        extractor_conv_layer_config=[
            (32, k, s) for k, s in zip(config.conv_kernels, config.conv_strides, strict=True)
        ],
        extractor_conv_bias=bias,
        encoder_embed_dim=64,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=128,
        encoder_pos_conv_groups=16,
        encoder_num_layers=2,
        encoder_num_heads=4,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=128,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=config.norm == "pre",
        encoder_layer_drop=0.0,
        aux_num_out=None,
    ).eval()
    own = model.state_dict()
    parts = {
        "frontend.norm": "encoder.feature_projection.layer_norm",
        "frontend.proj": "encoder.feature_projection.projection",
        "encoder.norm": "encoder.transformer.layer_norm",
    }
    for i in range(7):
        parts[f"frontend.conv.{i}.conv"] = f"feature_extractor.conv_layers.{i}.conv"
        parts[f"frontend.conv.{i}.norm"] = f"feature_extractor.conv_layers.{i}.layer_norm"
    inner = {
        "attn.q": "attention.q_proj",
        "attn.k": "attention.k_proj",
        "attn.v": "attention.v_proj",
        "attn.o": "attention.out_proj",
        "norm1": "layer_norm",
        "ff1": "feed_forward.intermediate_dense",
        "ff2": "feed_forward.output_dense",
        "norm2": "final_layer_norm",
    }
    for i in range(2):
        for ours, name in inner.items():
            parts[f"encoder.layers.{i}.{ours}"] = f"encoder.transformer.layers.{i}.{name}"
    new = {
        f"{parts[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v
        for k, v in own.items()
        if k.rpartition(".")[0] in parts
    }
    conv = "encoder.transformer.pos_conv_embed.conv"
    new[f"{conv}.bias"] = own["encoder.pos.bias"]
    for ours, name in (("gain", "original0"), ("direction", "original1")):
        new[f"{conv}.parametrizations.weight.{name}"] = own[f"encoder.pos.{ours}"]
    theirs.load_state_dict(new)
    (wav,) = noise(7000)
    with torch.no_grad():
        states, _ = theirs.extract_features(wav[None])
        if config.norm == "pre":  # their list ends before the final norm
            states[-1] = theirs.encoder.transformer.layer_norm(states[-1])
    *_, first, second = model.freeze().hidden_states([wav])
    assert relative(first, states[0][0]) < 1e-5
    assert relative(second, states[1][0]) < 1e-5


# -- precision and packing ----------------------------------------------------------------------


@pytest.mark.usefixtures("bfloat16_products")
def test_bf16_is_close_and_is_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    wavs = noise(8000, 3000)
    exact = list(build(POST).freeze().hidden_states(wavs))
    monkeypatch.setattr(packed_linear, "cpu_multiplies_bf16", lambda: True)
    rough = list(build(POST).freeze("bf16").hidden_states(wavs))
    for a, b in zip(rough, exact, strict=True):
        assert a.dtype == torch.float32
        assert 1e-4 < relative(a, b) < 3e-2


def test_bf16_without_instructions_is_fp32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(packed_linear, "cpu_multiplies_bf16", lambda: False)
    wavs = noise(8000)
    *_, a = build(POST).freeze("bf16").hidden_states(wavs)
    *_, b = build(POST).freeze().hidden_states(wavs)
    assert torch.equal(a, b)
    assert "no bfloat16 matrix instructions" in caplog.text


def test_without_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    wavs = noise(8000, 500)
    fast = list(build(PRE).freeze().hidden_states(wavs))
    monkeypatch.setattr(packed_linear, "onednn_available", lambda: False)
    for a, b in zip(build(PRE).freeze().hidden_states(wavs), fast, strict=True):
        assert relative(a, b) < 1e-5


def test_packed_weights_follow_the_model() -> None:
    wavs = noise(5000)
    one, other = build(POST, seed=1).freeze(), build(POST, seed=2).freeze()
    twin = copy.deepcopy(one)
    one.load_state_dict(other.state_dict())
    *_, a = one.hidden_states(wavs)
    *_, b = other.hidden_states(wavs)
    *_, c = twin.hidden_states(wavs)
    assert torch.equal(a, b)
    assert not torch.allclose(a, c)
    again: Wav2Vec2 = pickle.loads(pickle.dumps(one))
    *_, d = again.hidden_states(wavs)
    assert torch.equal(a, d)


def test_features_can_feed_a_head_that_learns() -> None:
    model = build(POST).freeze()
    head = torch.nn.Linear(64, 3)
    states = list(model.hidden_states(noise(5000)))
    assert torch.is_grad_enabled()
    head(states[-1]).sum().backward()
    assert head.weight.grad is not None
    before = [s.clone() for s in states]
    list(model.hidden_states(noise(5000, seed=5)))
    assert all(torch.equal(a, b) for a, b in zip(states, before, strict=True))


# -- the objective ------------------------------------------------------------------------------


def hugging_face(model: Wav2Vec2) -> Any:
    from transformers import Wav2Vec2Config, Wav2Vec2ForPreTraining

    from mynah.upstream.interop import keymap

    config = model.config
    theirs = Wav2Vec2ForPreTraining(
        Wav2Vec2Config(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            conv_dim=[32] * 7,
            hidden_dropout=0.0,
            activation_dropout=0.0,
            attention_dropout=0.0,
            feat_proj_dropout=0.0,
            feat_quantizer_dropout=0.0,
            layerdrop=0.0,
            apply_spec_augment=True,
            mask_feature_prob=0.0,
            num_codevectors_per_group=8,
            num_codevector_groups=2,
            codevector_dim=16,
            proj_codevector_dim=24,
            num_negatives=7,
        )
    )
    state = {}
    for key, value in model.state_dict().items():
        if key == "quantizer.temperature":
            continue
        name = keymap.theirs(key, "hf", conv_norm=config.conv_norm)[0]
        head = name.startswith(("quantizer", "project"))
        state[name if head else f"wav2vec2.{name}"] = value
    state["quantizer.codevectors"] = state["quantizer.codevectors"].reshape(1, 16, 8)
    theirs.load_state_dict(state)
    return theirs


def test_loss_equals_hugging_face() -> None:
    calm = {"dropout": 0.0, "attention_dropout": 0.0, "layerdrop": 0.0, "input_dropout": 0.0}
    config = dataclasses.replace(POST, feature_dropout=0.0, penalty_weight=0.0, **calm)
    model = build(config).eval()
    theirs = hugging_face(model).eval()
    wavs = noise(16000, 16000, 16000)
    frames = model.num_frames(16000)
    generator = torch.Generator().manual_seed(3)
    mask_BT = span_mask(torch.tensor([frames] * 3), prob=0.65, length=10, generator=generator)
    negatives_MK = sample_negatives(mask_BT.sum(1), 7, generator=generator)
    # theirs index all frames of the padded batch, ours the masked ones laid end to end
    flat_M = mask_BT.reshape(-1).nonzero()[:, 0]
    sampled = torch.zeros(3 * frames, 7, dtype=torch.int64)
    sampled[flat_M] = flat_M[negatives_MK]
    arguments = {
        "input_values": torch.stack(wavs),
        "mask_time_indices": mask_BT,
        "sampled_negative_indices": sampled.view(3, frames, 7),
    }
    with torch.no_grad():
        reference = theirs(**arguments)
    ours = model.contrast(wavs, mask_BT, negatives_MK, generator=None)
    masked = int(mask_BT.sum())
    assert ours.weight == masked
    assert float(ours.parts["contrastive"]) == pytest.approx(
        float(reference.contrastive_loss) / masked, rel=1e-5
    )
    # in training mode theirs, too, takes the diversity from the softmax without noise
    with torch.no_grad():
        noisy = theirs.train()(**arguments)
    trained = model.train().contrast(wavs, mask_BT, negatives_MK, generator=generator)
    assert float(trained.parts["diversity"]) == pytest.approx(
        float(noisy.diversity_loss) / masked, rel=1e-5
    )
    total = trained.parts["contrastive"] + 0.1 * trained.parts["diversity"]
    assert float(trained.total.detach()) == pytest.approx(float(total), rel=1e-6)


def test_penalty_is_the_mean_square_of_true_raw_frames() -> None:
    model = build(POST).eval()
    wavs = noise(16000, 9000)
    with torch.no_grad():
        raw = torch.cat([model.frontend.raw([wav])[0][0] for wav in wavs])
    mask_BT = span_mask(
        torch.tensor([49, 27]),
        prob=0.65,
        length=10,
        generator=torch.Generator().manual_seed(0),
        same_count=False,
    )
    negatives = sample_negatives(mask_BT.sum(1), 7, generator=torch.Generator().manual_seed(0))
    loss = model.contrast(wavs, mask_BT, negatives, generator=None)
    assert float(loss.parts["penalty"]) == pytest.approx(float(raw.square().mean()), rel=1e-5)
    rest = loss.parts["contrastive"] + 0.1 * loss.parts["diversity"]
    assert float(loss.total.detach()) == pytest.approx(
        float(rest + 10 * loss.parts["penalty"]), rel=1e-5
    )


def test_masked_frames_are_hidden_from_the_context() -> None:
    """With everything masked the prediction cannot depend on the audio: only the target does."""
    model = build(dataclasses.replace(POST, penalty_weight=0.0)).eval()
    seen: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    mask_BT = torch.zeros(1, 24, dtype=torch.bool)
    mask_BT[0, 5:12] = True
    for seed in (0, 1):
        model.contrast(noise(8000, seed=seed), mask_BT, torch.randint(7, (7, 7)), generator=None)
    same_T = (seen[0] == seen[1]).all(dim=2)[0]
    assert torch.equal(same_T, mask_BT[0])


def test_the_gradient_into_the_front_end_is_scaled() -> None:
    grads = []
    for factor in (1.0, 0.1):
        calm = {"dropout": 0.0, "attention_dropout": 0.0, "layerdrop": 0.0, "input_dropout": 0.0}
        config = dataclasses.replace(POST, feature_dropout=0.0, front_grad=factor, **calm)
        model = build(config).train()
        model.loss(batch(16000, 16000)).total.backward()
        conv = model.frontend.conv[3].conv.weight.grad  # type: ignore[union-attr,operator,index]
        grads.append((conv, model.frontend.proj.weight.grad))
    assert relative(grads[1][0], 0.1 * grads[0][0]) < 1e-4
    assert relative(grads[1][1], grads[0][1]) < 1e-4


def test_every_weight_learns_and_draws_are_from_the_generator() -> None:
    model = build(dataclasses.replace(POST, layerdrop=0.0)).train()
    values = []
    for _ in range(2):
        torch.manual_seed(0)
        values.append(model.loss(batch(16000, 12000, 3000)).total)
    assert torch.equal(*values)
    values[0].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_temperature_follows_the_schedule() -> None:
    base = build(POST)
    assert base.quantizer is not None
    base.after_step(1000, 400000)
    assert float(base.quantizer.temperature) == pytest.approx(2 * 0.999995**1000)
    base.after_step(400000, 400000)
    assert float(base.quantizer.temperature) == pytest.approx(0.5)
    tiny = build(CONFIGS["tiny"])
    assert tiny.quantizer is not None
    for step, expected in ((100, 1.0), (200, 0.5)):
        tiny.after_step(step, 200)
        assert float(tiny.quantizer.temperature) == pytest.approx(expected)


def test_a_headless_model_has_no_loss() -> None:
    with pytest.raises(ValueError, match="objective=False"):
        build(dataclasses.replace(POST, objective=False)).loss(batch(16000))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front": "fft"}, "front must be"),
        ({"norm": "both"}, "norm must be"),
        ({"conv_norm": "batch"}, "norm must be"),
        ({"heads": 5}, "heads must divide the width 64"),
        ({"pos_groups": 7}, "pos_groups must divide"),
        ({"conv_kernels": (10,)}, "as many"),
    ],
)
def test_a_wrong_setting_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Wav2Vec2(dataclasses.replace(POST, **change))


@pytest.mark.parametrize(("name", "layers", "params"), [("base", 13, 95.0), ("large", 25, 317.4)])
def test_published_sizes(name: str, layers: int, params: float) -> None:
    with torch.device("meta"):
        model = mynah.upstream.build(f"wav2vec2/{name}")
    assert model.num_layers == layers
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(params, abs=0.1)
    assert [model.num_frames(n) for n in (1, 400, 719, 720, 16000)] == [1, 1, 1, 2, 49]
