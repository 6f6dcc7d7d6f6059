"""data2vec: equal to s3prl and Hugging Face; what both versions keep."""

import copy
import dataclasses
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from data2vec_small import MEL, SECOND, WAVE, build, draw
from waveforms import batch_drawn_on as batch
from waveforms import relative

import mynah.upstream
from mynah.upstream.core import modelfolder
from mynah.upstream.core.ema_teacher import layer_targets
from mynah.upstream.core.health import spread
from mynah.upstream.core.masking import span_mask
from mynah.upstream.data2vec import CONFIGS, Config, Data2Vec
from mynah.upstream.interop import keymap

# -- the references -------------------------------------------------------------------------------


def s3prl_model(ours: Data2Vec) -> Any:
    """s3prl's copy of fairseq's model with our weights, its teacher set by hand."""
    from mynah.upstream.interop.s3prl import ensure_importable

    ensure_importable()
    from s3prl.upstream.data2vec.data2vec_model import Data2VecAudioConfig, Data2VecAudioModel

    config = ours.config
    theirs = Data2VecAudioModel(
        Data2VecAudioConfig(
            extractor_mode="layer_norm",
            conv_feature_layers="[(32, 10, 5)] + [(32, 3, 2)] * 4 + [(32, 2, 2)] * 2",
            encoder_embed_dim=config.dim,
            encoder_layers=config.layers,
            encoder_attention_heads=config.heads,
            encoder_ffn_embed_dim=config.ffn,
            encoder_layerdrop=0.0,
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            dropout_input=0.0,
            dropout_features=0.0,
            feature_grad_mult=1.0,
            pos_conv_depth=5,
            conv_pos=95,
            instance_norm_target_layer=True,
            average_top_k_layers=config.top_layers,
        )
    )
    named = {
        keymap.theirs(key, "fairseq", conv_norm="layer")[0]: value
        for key, value in ours.state_dict().items()
    }
    theirs.load_state_dict({k: v for k, v in named.items() if not k.startswith("_ema")})
    teacher = copy.deepcopy(theirs.encoder)
    teacher.load_state_dict(
        {k.removeprefix("_ema."): v for k, v in named.items() if k.startswith("_ema")}
    )
    theirs.ema = SimpleNamespace(model=teacher, get_decay=lambda: 0.5)
    return theirs.eval()


def normalised(wavs: list[Tensor]) -> Tensor:
    return torch.stack([F.layer_norm(wav, wav.shape) for wav in wavs])


def test_features_and_loss_equal_s3prl() -> None:
    ours = build(WAVE).eval()
    theirs = s3prl_model(ours)
    wavs = batch(16000, 16000, 16000).wavs()
    states: list[Tensor] = []
    for layer in theirs.encoder.layers:
        layer.register_forward_hook(lambda _, args, out: states.append(args[0].transpose(0, 1)))
    with torch.no_grad():
        states.append(theirs.extract_features(normalised(wavs), None)["x"])
    frozen = build(WAVE).freeze()
    for mine, reference in zip(frozen.hidden_states(wavs), states, strict=True):
        assert relative(mine, reference[:, :49].flatten(0, 1)) < 1e-5  # theirs are padded to 50

    mask_BT = span_mask(
        torch.tensor([49] * 3), prob=0.65, length=10, generator=torch.Generator().manual_seed(1)
    )
    reference = theirs(normalised(wavs), mask_indices=mask_BT)
    value = reference["losses"]["regression"] / reference["sample_size"]
    loss = ours.regress(wavs, mask_BT)
    assert loss.weight == reference["sample_size"]
    assert relative(loss.total.detach(), value.detach()) < 1e-5
    assert relative(loss.parts["target_std"], reference["target_var"]) < 1e-5
    assert relative(loss.parts["prediction_std"], reference["pred_var"]) < 1e-5

    loss.total.backward()
    value.backward()
    gradients = dict(theirs.named_parameters())
    for key, p in ours.named_parameters():
        if not key.startswith("teacher."):
            slope = gradients[keymap.theirs(key, "fairseq", conv_norm="layer")[0]].grad
            assert p.grad is not None
            # a key's bias moves no attention weight: its slope is rounding
            assert key.endswith("attn.k.bias") or relative(p.grad, slope) < 1e-4, key


def test_features_equal_hugging_face() -> None:
    from transformers import Data2VecAudioConfig, Data2VecAudioModel

    ours = build(dataclasses.replace(WAVE, objective=False)).eval()
    theirs = Data2VecAudioModel(
        Data2VecAudioConfig(
            hidden_size=48,
            num_hidden_layers=3,
            num_attention_heads=6,
            intermediate_size=96,
            conv_dim=[32] * 7,
            conv_pos_kernel_size=19,
            num_conv_pos_embeddings=5,
            num_conv_pos_embedding_groups=16,
            layerdrop=0.0,
        )
    ).eval()
    theirs.load_state_dict(
        {
            keymap.theirs(key, "hf", conv_norm="layer")[0]: value
            for key, value in ours.state_dict().items()
        }
    )
    wavs = batch(16000, 16000).wavs()
    with torch.no_grad():
        reference = theirs(normalised(wavs), output_hidden_states=True).hidden_states
    ours.freeze()
    for mine, state in zip(ours.hidden_states(wavs), reference, strict=True):
        assert relative(mine, state.flatten(0, 1)) < 1e-5


# -- both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [WAVE, MEL, SECOND], ids=["wave", "mel", "second"])
def test_an_utterance_does_not_see_its_neighbours(config: Config) -> None:
    model = build(config).eval()
    data = batch(16000, 9000, 12000)
    mask_RT, noise_MD = draw(model, data)
    clones = max(1, config.clones)
    with torch.no_grad():
        together = model.regress(data.wavs(), mask_RT, noise_MD)
        total, used = 0.0, 0
        for row, wav_S in enumerate(data.wavs()):
            mine = mask_RT[row * clones : (row + 1) * clones, : model.num_frames(len(wav_S))]
            count = int(mine.sum())
            noise = None if noise_MD is None else noise_MD[used : used + count]
            alone = model.regress([wav_S], mine, noise)
            total, used = total + float(alone.total) * count, used + count
    assert together.weight == used
    assert float(together.total) == pytest.approx(total / used, rel=1e-5)


def test_trivial_predictors_and_collapse() -> None:
    model = build(MEL).eval()
    with torch.no_grad():  # a head that says the same for all frames
        model.final_proj.weight.zero_()
    parts = model.loss(batch(32000, 32000)).parts
    assert float(parts["prediction_std"]) < 0.01  # fairseq's floors
    assert float(parts["target_std"]) > 0.1
    assert float(parts["regression"]) >= float(parts["mean"]) > 0
    assert model.floors == {"target_std": 0.1, "prediction_std": 0.01}
    x_MD = torch.randn(50, 4)
    columns = [float(c.double().var()) + 1e-6 for c in x_MD.T]
    assert float(spread(x_MD)) == pytest.approx(sum(map(math.sqrt, columns)) / 4)
    assert float(spread(x_MD[:1])) == 0.0


def test_mean_is_the_error_of_the_mean_target() -> None:
    model = build(MEL).eval()
    data = batch(16000)
    mask_BT = model.draw_mask(data)
    reference = model.regress(data.wavs(), mask_BT)
    with torch.no_grad():
        frames = model.frames(data.wavs())
        assert model.teacher is not None
        layers = layer_targets(model.teacher, frames.x_BTD, None, top=2)
        target_MD = ((layers[0] + layers[1]) / 2)[mask_BT]
        model.final_proj.weight.zero_()
        model.final_proj.bias.copy_(target_MD.mean(0))
    loss = model.regress(data.wavs(), mask_BT)
    assert float(loss.total.detach()) == pytest.approx(float(reference.parts["mean"]), rel=1e-5)


def test_the_teacher_hears_no_dropout() -> None:
    """Targets are the same in every draw of dropout; predictions are not."""
    model = build(dataclasses.replace(MEL, dropout=0.3, input_dropout=0.3)).train()
    assert model.teacher is not None
    assert model.encoder.training
    assert not model.teacher.training
    data = batch(16000)
    mask_BT = model.draw_mask(data)
    parts = [model.regress(data.wavs(), mask_BT).parts for _ in range(2)]
    assert torch.equal(parts[0]["target_std"], parts[1]["target_std"])
    assert not torch.equal(parts[0]["regression"], parts[1]["regression"])


@pytest.mark.parametrize("config", [MEL, SECOND], ids=["first", "second"])
def test_the_teacher_follows(config: Config) -> None:
    model = build(dataclasses.replace(config, ema_start=0.5, ema_end=1.0, ema_anneal=0.5))
    assert model.teacher is not None
    old = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    model.after_step(25, 100)  # halfway to the end: 0.75
    for key, value in model.teacher.state_dict().items():
        student = model.encoder.state_dict()[key]
        expected = 0.75 * old[key] + 0.25 * student
        if key.startswith("pos.") and not config.clones:
            expected = student
        assert torch.allclose(value, expected, atol=1e-6), key
    old = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    model.after_step(50, 100)  # it has come to rest
    assert all(torch.equal(v, old[k]) for k, v in model.teacher.state_dict().items())


@pytest.mark.parametrize("config", [MEL, SECOND], ids=["first", "second"])
def test_every_weight_learns_but_the_teachers(config: Config) -> None:
    model = build(config).train()
    first, second = (model.loss(batch(16000, 12000, 3000)).total for _ in range(2))
    assert torch.equal(first, second)  # every draw is from the batch's generator
    first.backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None]
    assert idle == [n for n, _ in model.named_parameters() if n.startswith("teacher.")]
    assert all(p.grad.any() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("config", [MEL, SECOND], ids=["first", "second"])
def test_a_resumed_run_is_the_same(config: Config, tmp_path: Path) -> None:
    def step(model: Data2Vec, number: int) -> None:
        model.zero_grad()
        model.loss(batch(16000, 9000, seed=number)).total.backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p -= 0.01 * p.grad
        model.after_step(number, 4)

    whole = build(dataclasses.replace(config, ema_start=0.9, ema_anneal=3)).train()
    for number in range(1, 5):
        step(whole, number)
        if number == 2:
            modelfolder.save(whole, tmp_path)
    again = modelfolder.load(tmp_path).train()
    assert isinstance(again, Data2Vec)
    for number in (3, 4):
        step(again, number)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_one_frame_is_enough_to_go_on() -> None:
    for config in (MEL, SECOND):
        model = build(config).train()
        for seed in range(4):
            loss = model.loss(batch(1, seed=seed))
            loss.total.backward()
            assert math.isfinite(float(loss.total.detach()))
            assert loss.weight == 1.0 or config.clones
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "layers", "params"), [("base", 13, 93.8), ("large", 25, 314.3), ("base2", 13, 93.8)]
)
def test_published_sizes(name: str, layers: int, params: float) -> None:
    with torch.device("meta"):
        model = mynah.upstream.build(f"data2vec/{name}")
    assert (model.num_layers, model.stride) == (layers, 320)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
    assert trained == pytest.approx(params, abs=0.1)


def test_without_a_teacher_there_is_no_loss() -> None:
    model = build(dataclasses.replace(MEL, objective=False, top_layers=8))
    assert not any(key.startswith(("teacher", "final_proj")) for key in model.state_dict())
    model.after_step(1, 10)
    with pytest.raises(ValueError, match="objective=False"):
        model.loss(batch(16000))


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (MEL, {"top_layers": 0}, "top_layers must be between 1 and the 3 layers, got 0"),
        (MEL, {"top_layers": 4}, "got 4"),
        (SECOND, {"decoder_kernel": 4}, "decoder_kernel odd"),
        (SECOND, {"decoder_depth": 0}, "decoder_depth must be at least 1"),
        (SECOND, {"decoder_groups": 5}, "decoder_groups must divide the widths 48 and 32"),
        (MEL, {"position": "sine"}, "position must be one of"),
    ],
)
def test_a_wrong_setting_is_refused(config: Config, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Data2Vec(dataclasses.replace(config, **change))


def test_tiny_settings_scale_with_the_run() -> None:
    for name in ("tiny", "tiny2"):
        assert 0 < CONFIGS[name].ema_anneal <= 1
