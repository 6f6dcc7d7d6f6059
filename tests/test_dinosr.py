"""DinoSR and SpidR: labels, loss and teacher against explicit loops in float64."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from waveforms import batch_drawn_on as batch

import mynah.upstream
from mynah.upstream.core import modelfolder
from mynah.upstream.core.ema_teacher import exponential_decay, instance_norm, linear_decay
from mynah.upstream.core.masking import span_mask
from mynah.upstream.dinosr import CONFIGS, Config, DinoSr

SMALL: dict[str, Any] = {
    "front": "mel",
    "num_mels": 10,
    "dim": 32,
    "layers": 3,
    "heads": 4,
    "ffn": 64,
    "pos_kernel": 5,
    "pos_depth": 2,
    "top_layers": 2,
    "codes": 7,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "layerdrop": 0.0,
    "mask_length": 4,
}
SPIDR: dict[str, Any] = {"read": "each", "teacher_start": "random", "ema_timescale": 20000.0}


def build(seed: int = 0, **change: Any) -> DinoSr:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DinoSr(Config(**{**SMALL, **change}))
        for p in model.parameters():
            p.data += 0.05 * torch.randn_like(p)
    return model


# -- the objective --------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, SPIDR], ids=["dinosr", "spidr"])
def test_loss_equals_explicit_loops(change: dict[str, Any]) -> None:
    """Utterances one at a time, layers, frames and codes in loops, in float64."""
    model = build(**change).eval()
    assert model.teacher is not None
    data = batch(16000, 9000)
    counts = torch.tensor([model.num_frames(16000), model.num_frames(9000)])
    mask_BT = span_mask(counts, prob=0.8, length=4, generator=data.generator, same_count=False)
    loss = model.predict(data.wavs(), mask_BT)
    model.double()
    terms: list[float] = []
    right = 0
    for row, wav_S in enumerate(data.wavs()):
        with torch.no_grad():
            raw_1TC = model.frontend.raw([wav_S])[0].double()
            x_1TD = model.frontend.proj(model.frontend.norm(raw_1TC))
            fed: list[Tensor] = []
            model.teacher(x_1TD, fed=fed)
            hidden_1TD = x_1TD.clone()
            for t in range(int(counts[row])):
                if mask_BT[row, t]:
                    hidden_1TD[0, t] = model.mask_emb
            mine: list[Tensor] = []
            last_TD = model.encoder(hidden_1TD, fed=mine)[-1][0]
        for g in range(2):
            y_TD = fed[g + 1][0]
            y_TD = (y_TD - y_TD.mean(0)) / (y_TD.var(0, correction=0) + 1e-5).sqrt()
            codes_VD = model.codebook.vectors()[g]
            heard_TD = mine[g + 1][0] if change else last_TD
            for t in range(int(counts[row])):
                if mask_BT[row, t]:
                    label = int((codes_VD - y_TD[t]).norm(dim=1).argmin())
                    logits_V = model.heads[g](heard_TD[t]).detach()
                    terms.append(float(logits_V.exp().sum().log() - logits_V[label]))
                    right += int(logits_V.argmax()) == label
    assert loss.weight == len(terms) / 2 > 20
    assert float(loss.total.detach()) == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert float(loss.parts["accuracy"]) == pytest.approx(right / len(terms), abs=1e-6)


def test_codes_move_after_the_step_and_in_training_only() -> None:
    model = build()
    before = model.codebook.sums_GVD.clone()
    model.eval().loss(batch(16000))
    model.after_step(1, 10)
    assert torch.equal(model.codebook.sums_GVD, before)
    model.train().loss(batch(16000))
    assert torch.equal(model.codebook.sums_GVD, before)
    model.after_step(2, 10)
    assert not torch.equal(model.codebook.sums_GVD, before)


def test_health_of_the_labels() -> None:
    model = build().eval()
    parts = model.loss(batch(32000, 32000)).parts
    assert 1 < float(parts["code_perplexity"]) <= 7
    assert math.log(float(parts["code_perplexity"])) == pytest.approx(
        float(parts["prior"]), rel=0.05
    )  # means over codebooks of both
    with torch.no_grad():  # a teacher that says the same for all frames
        assert model.teacher is not None
        for layer in model.teacher.stack():
            layer.ff2.weight.zero_()
    assert float(model.loss(batch(32000)).parts["code_perplexity"]) == pytest.approx(1.0)
    assert model.floors["code_perplexity"] > 1


# -- the teacher ----------------------------------------------------------------------------------


def test_schedules() -> None:
    def linear(step: int) -> float:
        return linear_decay(step, 400000, start=0.999, end=0.9999, length=30000.0)

    assert [linear(0), linear(15000), linear(30000), linear(10**6)] == pytest.approx(
        [0.999, 0.99945, 0.9999, 0.9999], abs=1e-12
    )
    half = linear_decay(100, 400, start=0.9, end=1.0, length=0.5)
    assert half == pytest.approx(0.95)

    def spidr(step: int) -> float:
        return exponential_decay(step, 400000, start=0.999, timescale=20000.0)

    assert spidr(0) == pytest.approx(0.999)
    assert 1 - spidr(20000) == pytest.approx(0.001 / math.e)
    assert spidr(184000) < 1.0
    assert spidr(184300) == 1.0
    assert exponential_decay(50, 100, start=0.9, timescale=0.25) == pytest.approx(
        1 - 0.1 * math.exp(-2)
    )


def test_the_teacher_follows_and_takes_the_position_embedding() -> None:
    model = build(ema_start=0.75, ema_end=0.75)
    assert model.teacher is not None
    old = {k: v.clone() for k, v in model.teacher.state_dict().items()}
    with torch.no_grad():
        for p in model.encoder.parameters():
            p += torch.randn_like(p)
    model.after_step(1, 100)
    for key, value in model.teacher.state_dict().items():
        student = model.encoder.state_dict()[key]
        expected = student if key.startswith("pos.") else 0.75 * old[key] + 0.25 * student
        assert torch.allclose(value, expected, atol=1e-6), key


@pytest.mark.parametrize("change", [{}, {"ema_timescale": 0.1}], ids=["dinosr", "spidr"])
def test_late_in_the_run_the_front_end_rests(change: dict[str, Any]) -> None:
    model = build(freeze=0.5, ema_start=0.5, ema_end=0.5, **change).train()
    assert model.teacher is not None

    def moved(step: int) -> bool:
        assert model.teacher is not None
        with torch.no_grad():
            model.encoder.norm.weight += 1.0
        before = model.teacher.norm.weight.clone()
        model.after_step(step, 100)
        return not torch.equal(model.teacher.norm.weight, before)

    def front_learns() -> bool:
        model.zero_grad()
        model.loss(batch(16000)).total.backward()
        assert model.encoder.layers[0].ff1.weight.grad.any()  # type: ignore[union-attr,operator]
        return model.frontend.proj.weight.grad is not None

    assert front_learns()
    assert moved(49)
    assert front_learns()
    assert moved(50) == bool(change)  # SpidR's teacher has a schedule of its own
    assert not front_learns()
    again = build(freeze=0.5, **change).train()
    again.load_state_dict(model.state_dict())
    model = again
    assert not front_learns()


def test_the_teacher_is_no_part_of_the_training() -> None:
    model = build().train()
    assert model.teacher is not None
    assert not model.teacher.training
    assert not any(p.requires_grad for p in model.teacher.parameters())
    model.loss(batch(16000, 12000)).total.backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_spidrs_teacher_starts_elsewhere() -> None:
    model = mynah.upstream.build("dinosr/tiny")
    assert isinstance(model, DinoSr)
    assert model.teacher is not None
    same, other = model, DinoSr(dataclasses.replace(model.config, teacher_start="random"))
    for key, value in same.encoder.state_dict().items():
        assert torch.equal(value, same.teacher.state_dict()[key])  # type: ignore[union-attr]
    assert other.teacher is not None
    mine, theirs = other.encoder.state_dict(), other.teacher.state_dict()
    assert torch.equal(mine["pos.direction"], theirs["pos.direction"])
    assert not torch.allclose(mine["layers.0.ff1.weight"], theirs["layers.0.ff1.weight"])


def test_an_utterance_does_not_see_its_neighbours() -> None:
    model = build().eval()
    data = batch(16000, 9000, 12000)
    counts = torch.tensor([model.num_frames(int(n)) for n in data.lengths_B])
    mask_BT = span_mask(counts, prob=0.6, length=4, generator=data.generator, same_count=False)
    together = model.predict(data.wavs(), mask_BT)
    total = 0.0
    for wav_S, mask_T, count in zip(data.wavs(), mask_BT, counts.tolist(), strict=True):
        alone = model.predict([wav_S], mask_T[None, :count])
        total += float(alone.total.detach()) * alone.weight
    assert float(together.total.detach()) == pytest.approx(total / together.weight, rel=1e-5)


def test_a_resumed_run_is_the_same(tmp_path: Path) -> None:
    def step(model: DinoSr, number: int) -> None:
        model.zero_grad()
        model.loss(batch(16000, 9000, seed=number)).total.backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p -= 0.1 * p.grad
        model.after_step(number, 6)

    whole = build(freeze=0.5, ema_start=0.9, ema_end=0.99, ema_anneal=4).train()
    for number in range(1, 7):
        step(whole, number)
        if number == 4:
            modelfolder.save(whole, tmp_path)
    again = modelfolder.load(tmp_path).train()
    assert isinstance(again, DinoSr)
    for number in (5, 6):
        step(again, number)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key


def test_instance_norm_is_over_true_frames() -> None:
    torch.manual_seed(0)
    x_BTD = torch.randn(3, 9, 4)
    reference = torch.nn.functional.instance_norm(x_BTD.transpose(1, 2)).transpose(1, 2)
    assert torch.allclose(instance_norm(x_BTD), reference, atol=1e-6)
    valid_BT = torch.arange(9) < torch.tensor([9, 5, 1])[:, None]
    x_BTD = torch.where(valid_BT[..., None], x_BTD, 1e3)
    y_BTD = instance_norm(x_BTD, valid_BT)
    assert torch.allclose(y_BTD[0], instance_norm(x_BTD[:1])[0], atol=1e-6)
    assert torch.allclose(y_BTD[1, :5], instance_norm(x_BTD[1:2, :5])[0], atol=1e-6)
    assert not y_BTD[2].any()
    assert not y_BTD[1, 5:].any()


def test_one_frame_is_enough_to_go_on() -> None:
    model = build().train()
    for seed in range(4):  # its only frame is masked or not
        loss = model.loss(batch(1, seed=seed))
        loss.total.backward()
        assert math.isfinite(float(loss.total.detach()))
        assert loss.weight == 1.0
        model.after_step(1, 10)
    assert all(v.isfinite().all() for v in model.state_dict().values())


def test_sizes() -> None:
    with torch.device("meta"):
        for name in ("base", "spidr"):
            model = mynah.upstream.build(f"dinosr/{name}")
            assert (model.num_layers, model.dim, model.stride) == (13, 768, 320)
            trained = sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6
            assert trained == pytest.approx(94.7, abs=0.1)
    assert CONFIGS["spidr"].read == "each"


def test_without_a_teacher_there_is_no_loss() -> None:
    model = build(objective=False)
    assert "teacher" not in dict(model.named_children())
    model.after_step(1, 10)
    with pytest.raises(ValueError, match="objective=False"):
        model.loss(batch(16000))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_layers": 4}, "top_layers must be between 1 and the 3 layers, got 4"),
        ({"read": "first"}, "read must be 'last' or 'each'"),
        ({"teacher_start": "zero"}, "teacher_start 'copy' or 'random'"),
        ({"read": "each", "layerdrop": 0.1}, "layerdrop must be 0"),
        ({"codes": 1}, "codes at least 2"),
    ],
)
def test_a_wrong_setting_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**change)
