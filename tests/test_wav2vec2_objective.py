"""The objective of wav2vec 2.0: equal to Hugging Face's, its penalty, its masks and its temperature."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from wav2vec2_small import POST, build
from waveforms import batch, noise, relative

import mynah.upstream
from mynah.upstream.core.contrastive import sample_negatives
from mynah.upstream.core.masking import span_mask
from mynah.upstream.wav2vec2 import CONFIGS, Wav2Vec2


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
