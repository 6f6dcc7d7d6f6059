"""BEST-RQ: the quantiser, the mask and the loss against explicit loops in float64."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from waveforms import batch_drawn_on as batch

import mynah.upstream
from mynah.upstream.best_rq import CONFIGS, BestRq, Config
from mynah.upstream.core.random_projection import RandomProjection

SMALL: dict[str, Any] = {
    "num_mels": 10,
    "dim": 32,
    "layers": 2,
    "heads": 4,
    "ffn": 64,
    "pos_kernel": 8,
    "codes": 13,
    "code_dim": 6,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "input_dropout": 0.0,
}


def build(seed: int = 0, **change: Any) -> BestRq:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BestRq(Config(**{**SMALL, **change}))


# -- the quantiser --------------------------------------------------------------------------------


def test_codes_equal_an_explicit_search() -> None:
    torch.manual_seed(0)
    quantizer = RandomProjection(20, codes=64, code_dim=8, codebooks=3)
    x_MC = torch.randn(200, 20)
    found_MH = quantizer(x_MC)
    for h in range(3):
        matrix, codes = quantizer.projection_HCE[h].double(), quantizer.codes_HVE[h].double()
        for m, x_C in enumerate(x_MC.double()):
            y_E = torch.stack([(matrix[:, e] * x_C).sum() for e in range(8)])
            y_E = y_E / y_E.norm()
            distances = [float((c / c.norm() - y_E).norm()) for c in codes]
            assert int(found_MH[m, h]) == min(range(64), key=distances.__getitem__)
    assert not torch.equal(found_MH[:, 0], found_MH[:, 1])


def test_codes_equal_speechbrains_formula() -> None:
    torch.manual_seed(1)
    quantizer = RandomProjection(40, codes=128, code_dim=16)
    for x_C in torch.randn(150, 40):  # a frame at a time: its normalisation runs over frames
        y_E = F.normalize(x_C[None] @ quantizer.projection_HCE[0])
        distance_V1 = torch.linalg.vector_norm(quantizer.codes_HVE[0][:, None] - y_E, dim=-1)
        assert int(quantizer(x_C[None])) == int(distance_V1.argmin(dim=0))


def test_nothing_is_trained_and_everything_is_saved() -> None:
    quantizer = RandomProjection(20, codes=64, code_dim=8)
    assert list(quantizer.parameters()) == []
    assert set(quantizer.state_dict()) == {"projection_HCE", "codes_HVE"}
    bound = math.sqrt(6 / 28)  # Xavier
    assert 0.9 * bound < float(quantizer.projection_HCE.abs().max()) <= bound
    assert torch.allclose(quantizer.codes_HVE.norm(dim=2), torch.ones(1, 64))
    other = RandomProjection(20, codes=64, code_dim=8)
    x_MC = torch.randn(100, 20)
    assert not torch.equal(other(x_MC), quantizer(x_MC))
    other.load_state_dict(quantizer.state_dict())
    assert torch.equal(other(x_MC), quantizer(x_MC))


def test_codes_do_not_depend_on_loudness_or_autocast() -> None:
    torch.manual_seed(0)
    quantizer = RandomProjection(20, codes=512, code_dim=16)
    x_MC = torch.randn(300, 20)
    codes_MH = quantizer(x_MC)
    assert torch.equal(quantizer(7 * x_MC), codes_MH)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(quantizer(x_MC), codes_MH)
    assert not quantizer(torch.zeros(3, 20)).any()


@pytest.mark.parametrize("wrong", [{"codes": 0}, {"code_dim": 0}, {"codebooks": 0}])
def test_a_quantiser_of_nothing_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RandomProjection(4, **{"codes": 4, "code_dim": 4, **wrong})


# -- the mask -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", [{}, {"mask_prob": 0.6, "mask_length": 4, "mask_grid": 4}], ids=["paper", "blocks"]
)
def test_mask_equals_explicit_loops(change: dict[str, Any]) -> None:
    model = build(**change)
    config = model.config
    data = batch(16000, 1, 5000, 32000)
    data.generator.manual_seed(5)
    mask_BP = model.draw_mask(data)
    frames = [1 + max(0, n - 400) // 160 for n in (16000, 1, 5000, 32000)]
    width = -(-max(frames) // 4) * 4
    assert mask_BP.shape == (4, width)
    uniform = torch.rand(4, width, generator=torch.Generator().manual_seed(5))
    for row, count in enumerate(frames):
        hidden = [False] * width
        for start in range(0, count, config.mask_grid):
            if uniform[row, start] < config.mask_prob:
                for p in range(start, min(count, start + config.mask_length)):
                    hidden[p] = True
        assert mask_BP[row].tolist() == hidden


def test_shares_of_masked_frames_are_the_published_ones() -> None:
    data = batch(*[16000 * 20] * 20)
    paper = build().draw_mask(data)
    assert float(paper.float().mean()) == pytest.approx(1 - 0.99**40, abs=0.03)
    blocks = build(mask_prob=0.6, mask_length=4, mask_grid=4).draw_mask(data)
    assert float(blocks.float().mean()) == pytest.approx(0.6, abs=0.02)


# -- the objective --------------------------------------------------------------------------------


def features(model: BestRq, wav_S: Tensor) -> Tensor:
    return model.frontend.raw([wav_S])[0][0]


@pytest.mark.parametrize("books", [1, 3])
def test_loss_equals_explicit_loops(books: int) -> None:
    model = build(codebooks=books, mask_prob=0.05, mask_length=13).eval()
    data = batch(16000, 9000)
    mask_BP = model.draw_mask(data)
    noise_XK = 0.1 * torch.randn(int(mask_BP.sum()), 10, generator=data.generator)
    loss = model.predict(data.wavs(), mask_BP, noise_XK)
    terms: list[float] = []
    right = 0
    used = 0
    for row, wav_S in enumerate(data.wavs()):
        raw_TC = features(model, wav_S)
        seen_TC = raw_TC.clone()
        for t in range(len(raw_TC)):
            for k in range(4):
                if mask_BP[row, 4 * t + k]:
                    seen_TC[t, 10 * k : 10 * (k + 1)] = noise_XK[used]
                    used += 1
        with torch.no_grad():
            last_TD = model.encoder(model.frontend.proj(seen_TC)[None])[-1][0]
            logits = model.classifier(last_TD).double().unflatten(1, (books, 13))
        for t in range(len(raw_TC)):
            if sum(mask_BP[row, 4 * t : 4 * t + 4].tolist()) / 4 > 0.8:
                for h in range(books):
                    label = int(model.quantizer(raw_TC[t][None])[0, h])
                    row_V = logits[t, h]
                    terms.append(float(row_V.exp().sum().log() - row_V[label]))
                    right += int(row_V.argmax()) == label
    assert used == len(noise_XK)
    assert loss.weight == len(terms) / books > 10
    assert float(loss.total.detach()) == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert float(loss.parts["accuracy"]) == pytest.approx(right / len(terms), abs=1e-6)


def test_hidden_frames_are_hidden() -> None:
    """With everything hidden the encoder hears noise alone; the labels are those of the speech."""
    model = build().eval()
    heard: list[Tensor] = []
    model.encoder.register_forward_pre_hook(lambda _, args: heard.append(args[0].detach()))
    mask_BP = torch.ones(1, 100, dtype=torch.bool)
    mask_BP[0, 98:] = False  # 98 frames, filled up to 100
    noise_XK = torch.randn(98, 10)
    losses = [
        model.predict(batch(16000, seed=seed).wavs(), mask_BP, noise_XK).total for seed in (0, 1)
    ]
    assert torch.equal(heard[0], heard[1])
    assert not torch.equal(*losses)


def test_an_utterance_does_not_see_its_neighbours() -> None:
    model = build().eval()
    data = batch(16000, 9000, 300)
    mask_BP = model.draw_mask(dataclasses.replace(data, generator=torch.Generator().manual_seed(2)))
    assert mask_BP[:2].any(dim=1).all()
    noise_XK = 0.1 * torch.randn(int(mask_BP.sum()), 10)
    together = model.predict(data.wavs(), mask_BP, noise_XK)
    parts = noise_XK.split(mask_BP.sum(dim=1).tolist())
    total, weight = 0.0, 0.0
    for wav_S, mask_P, part_XK in zip(data.wavs(), mask_BP, parts, strict=True):
        width = 4 * model.num_frames(len(wav_S))
        alone = model.predict([wav_S], mask_P[None, :width], part_XK)
        if alone.parts.keys() > {"cross_entropy"}:  # otherwise nothing is masked
            weight += alone.weight
            total += float(alone.total.detach()) * alone.weight
    assert together.weight == weight
    assert float(together.total.detach()) == pytest.approx(total / weight, rel=1e-5)


def test_parts_are_those_of_the_labels() -> None:
    """A classifier of one opinion; labels of a white noise use many codes."""
    model = build(mask_prob=0.2).eval()
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.zero_()
        model.classifier.bias[3] = 50.0
    parts = model.loss(batch(160000)).parts
    assert float(parts["prediction_perplexity"]) == pytest.approx(1.0, abs=1e-4)
    assert math.log(float(parts["code_perplexity"])) == pytest.approx(float(parts["prior"]))
    assert 4 < float(parts["code_perplexity"]) <= 13
    with torch.no_grad():
        model.classifier.bias.zero_()
    parts = model.loss(batch(160000)).parts
    assert float(parts["prediction_perplexity"]) == pytest.approx(13.0, rel=1e-4)
    assert float(parts["cross_entropy"]) == pytest.approx(math.log(13), rel=1e-5)


def test_nothing_masked_is_a_loss_of_zero() -> None:
    model = build(mask_prob=1e-9).train()
    loss = model.loss(batch(1, 500))
    loss.total.backward()
    assert (float(loss.total.detach()), loss.weight) == (0.0, 1.0)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_random_choices_are_the_generators() -> None:
    model = build().train()
    first, second = (model.loss(batch(16000, 8000)).total for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, model.loss(batch(16000, 8000, seed=1)).total)


def test_sizes() -> None:
    with torch.device("meta"):
        model = mynah.upstream.build("best_rq/base")
    assert (model.num_layers, model.dim, model.stride) == (13, 576, 640)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(50.4, abs=0.2)
    assert [model.num_frames(n) for n in (1, 400, 1039, 1040, 16000)] == [1, 1, 1, 2, 25]
    assert CONFIGS["tiny"].codes in range(256, 1025)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"front": "wave"}, "front must be 'mel'"),
        ({"mask_prob": 0.0}, "mask_prob must be in"),
        ({"mask_length": 0}, "mask_length and mask_grid"),
        ({"mask_grid": 0}, "mask_length and mask_grid"),
        ({"mask_share": 1.0}, "mask_share"),
        ({"codebooks": 0}, "at least 1"),
    ],
)
def test_a_wrong_setting_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**change)
