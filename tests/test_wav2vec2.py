"""wav2vec 2.0: features equal to the references', independent of the batch, at every precision."""

import copy
import dataclasses
import pickle
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from wav2vec2_small import POST, PRE, build
from waveforms import noise, relative

from mynah.upstream.core import packed_linear
from mynah.upstream.wav2vec2 import CONFIGS, Config, Wav2Vec2

LENGTHS = [1, 399, 400, 401, 719, 720, 721, 16000, 4321, 50000]


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
    packed_linear._warn_of_float32.cache_clear()
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
