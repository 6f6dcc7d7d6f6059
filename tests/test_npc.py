"""NPC against s3prl's: states and loss on the same weights, and what a prediction may depend on."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from padded import batch, waves

from mynah.upstream.core.gumbel import gumbel_noise
from mynah.upstream.interop import s3prl
from mynah.upstream.interop.families import npc as reader
from mynah.upstream.npc import CONFIGS, Config, MaskedConv, Npc

MICRO = Config(
    num_mels=20, dim=24, blocks=2, kernel=11, mask=5, dropout=0.0, codes=(6, 4), code_dims=(10, 14),
)  # fmt: skip
LENGTHS = (600, 800, 16000, 23456)  # s3prl makes NaN of a single frame


def make(config: Config, seed: int = 0) -> Npc:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Npc(config)


def relative(x: Tensor, reference: Tensor) -> float:
    x, reference = x.detach().double(), reference.detach().double()
    return float((x - reference).norm() / reference.norm())


# -- s3prl ----------------------------------------------------------------------------------------

VQ = {"codebook_size": [6, 4], "code_dim": [10, 14], "gumbel_temperature": 0.8}


def checkpoint(folder: Path, **paras: Any) -> tuple[Path, nn.Module]:
    """Return a checkpoint in s3prl's form, with norms as if trained, and s3prl's own model."""
    s3prl.ensure_importable()
    from s3prl.upstream.npc.npc import NPC

    settings = {
        "hidden_size": 24, "n_blocks": 2, "kernel_size": 11, "mask_size": 5, "dropout": 0.0,
        "residual": True, "batch_norm": True, "activate": "relu", "disable_cross_layer": False,
        "vq": VQ, **paras,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = NPC(20, **settings).eval()
        for key, value in model.state_dict().items():
            if ".bn" in key and value.is_floating_point():
                value += 0.3 * torch.rand_like(value)
    audio = {"feat_type": "fbank", "feat_dim": 20, "frame_length": 25, "frame_shift": 10}
    config = {
        "model": {"method": "npc", "paras": settings},
        "data": {"audio": {**audio, "decode_wav": False, "cmvn": True}},
    }
    path = folder / "npc.ckpt"
    torch.save({"model": model.state_dict(), "config": config}, path)
    return path, model


@pytest.mark.parametrize("vq", [VQ, None])
def test_states_are_those_of_s3prl(tmp_path: Path, vq: dict[str, Any] | None) -> None:
    path, _ = checkpoint(tmp_path, vq=vq)
    from s3prl.upstream.npc.expert import UpstreamExpert

    ours, theirs = s3prl.convert(path).freeze(), UpstreamExpert(str(path)).eval()
    assert (ours.name, ours.dim, ours.num_layers, ours.stride) == ("npc", 24, 5, 160)
    wavs = waves(batch(*LENGTHS))
    counts = [ours.num_frames(n) for n in LENGTHS]
    states = [state.split(counts) for state in ours.hidden_states(wavs)]
    for index, wav in enumerate(wavs):
        with torch.no_grad():
            expected = theirs([wav])["hidden_states"]
        for state, want in zip(states, expected, strict=True):
            assert state[index].shape == want[0].shape
            assert relative(state[index], want[0]) < 1e-5


def test_loss_is_s3prl_s_in_evaluation_and_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, theirs = checkpoint(tmp_path)
    ours = s3prl.convert(path)
    given = batch(9000, 9000, 9000)
    x_NM, counts = ours.features(waves(given))  # type: ignore[operator]
    x_BTM = torch.stack(x_NM.split(counts))

    predicted, _ = theirs(x_BTM, testing=True)
    expected = F.l1_loss(predicted, x_BTM).item()
    assert ours.eval().loss(given).total.item() == pytest.approx(expected, rel=1e-5)

    generator = torch.Generator().manual_seed(2)
    noises = iter([gumbel_noise((len(x_NM), n), generator=generator) for n in (6, 4)])

    def choose(logits: Tensor, *, tau: float, hard: bool, eps: float, dim: int) -> Tensor:
        assert hard
        soft = ((logits + next(noises).view_as(logits)) / tau).softmax(dim)
        return F.one_hot(soft.argmax(dim), logits.shape[dim]) + soft - soft.detach()

    monkeypatch.setattr("s3prl.upstream.npc.vq.gumbel_softmax", choose)
    predicted, _ = theirs.train()(x_BTM, testing=False)
    reference = F.l1_loss(predicted, x_BTM)
    loss = ours.train().loss(given)
    assert loss.total.item() == pytest.approx(reference.item(), rel=1e-5)
    reference.backward()
    loss.total.backward()
    got = dict(ours.named_parameters())
    for key, parameter in theirs.named_parameters():
        if key.endswith("postnet.weight") or "vq_logits.weight" in key or "bn1.weight" in key:
            (name,) = [k for k in got if reader.npc_key(k) == key]
            assert relative(got[name].grad, parameter.grad) < 1e-4  # type: ignore[arg-type]
    for block, other in zip(ours.blocks, theirs.blocks, strict=True):  # type: ignore[arg-type]
        assert relative(block.norm1.running_var, other.bn1.running_var) < 1e-5


def test_other_settings_and_weights_are_refused(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    content = torch.load(path, weights_only=True)
    for change, said in (
        ({"disable_cross_layer": True}, "disable_cross_layer"),
        ({"activate": "tanh"}, "activate"),
        ({"vq": {**VQ, "codebook_size": [6, 7]}}, "vq_layers"),
        ({"mask_size": 3}, "conv_mask"),
    ):
        paras = {**content["config"]["model"]["paras"], **change}
        config = {**content["config"], "model": {"paras": paras}}
        with pytest.raises(ValueError, match=said):
            reader.s3prl({**content, "config": config}, path)
    extra = {**content["model"], "postnet.extra": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"postnet\.extra"):
        reader.s3prl({**content, "model": extra}, path)
    del content["model"]["postnet.bias"]
    with pytest.raises(ValueError, match=r"postnet\.bias"):
        reader.s3prl(content, path)
    assert reader.s3prl({"weights": {}, "config": {}}, path) is None


# -- what a prediction may see ----------------------------------------------------------------------


def test_a_prediction_sees_its_surroundings_but_not_the_masked_frames() -> None:
    model = make(dataclasses.replace(MICRO, codes=(), code_dims=())).eval()
    x_NM = torch.randn(41, 20, requires_grad=True)
    model.predict(model.collect(x_NM, [41]))[20].sum().backward()
    assert x_NM.grad is not None
    seen = x_NM.grad.abs().sum(1).nonzero().flatten() - 20
    reach = (MICRO.kernel + 2 * MICRO.blocks) // 2  # the receptive field is kernel + 2 blocks
    assert seen.tolist() == [d for d in range(-reach, reach + 1) if abs(d) > MICRO.mask // 2]


def test_a_masked_convolution_is_one_with_zeroed_taps() -> None:
    torch.manual_seed(0)
    layer = MaskedConv(6, kernel=9, mask=5)
    assert layer.weight_OIK.shape == (6, 6, 4)
    full = torch.cat(
        [layer.weight_OIK[..., :2], torch.zeros(6, 6, 5), layer.weight_OIK[..., 2:]], 2
    )
    for frames in (1, 2, 3, 30):
        x_BTD = torch.randn(2, frames, 6)
        expected = F.conv1d(x_BTD.transpose(1, 2), full, layer.bias, padding=4).tanh()
        assert torch.allclose(layer(x_BTD), expected.transpose(1, 2), atol=1e-6)


# -- padding and the quantiser ----------------------------------------------------------------------


def test_a_padded_batch_in_training_is_its_utterances_side_by_side() -> None:
    model = make(MICRO)
    x_NM, counts = model.features(waves(batch(4000, 700, 9000)))
    conv, norm = model.blocks[0].conv, model.blocks[0].norm1  # type: ignore[union-attr]
    frames = torch.cat([conv(part.T[None])[0].T for part in x_NM.split(counts)])  # type: ignore[operator]
    model.collect(x_NM, counts)
    mean_D, variance_D = frames.mean(0).detach(), frames.var(0).detach()
    assert torch.allclose(norm.running_mean, 0.1 * mean_D, atol=1e-6)  # type: ignore[union-attr, arg-type]
    assert torch.allclose(norm.running_var, 0.9 + 0.1 * variance_D, atol=1e-5)  # type: ignore[union-attr, arg-type]

    model.eval()
    together = model.collect(x_NM, counts).split(counts)
    for got, part in zip(together, x_NM.split(counts), strict=True):
        assert relative(got, model.collect(part, [len(part)])) < 1e-5


def test_the_packed_states_add_up_to_what_training_collects() -> None:
    model = make(MICRO).eval()
    wavs = waves(batch(4000, 401, 9000))
    states = list(model.hidden_states(wavs))
    assert relative(states[-1], model.collect(*model.features(wavs))) < 1e-5
    assert relative(states[-1], states[1] + states[3]) < 1e-6


def test_loss_parts_and_floors() -> None:
    model, given = make(MICRO), batch(6400, 3200)
    loss = model.loss(given)
    parts = [model.features([wav])[0] for wav in waves(given)]
    copies = torch.cat([(x[3:] - x[:-3]).abs() for x in parts])
    assert loss.parts["mean"].item() == pytest.approx(torch.cat(parts).abs().mean().item())
    assert loss.parts["copy"].item() == pytest.approx(copies.mean().item())
    assert loss.weight == sum(map(len, parts))
    assert 2.0 <= loss.parts["code_perplexity"].item() <= 10.0
    assert model.floors == {"code_perplexity": 4.0}
    plain = make(dataclasses.replace(MICRO, codes=(), code_dims=()))
    assert plain.floors == {"embedding_std": 0.01}
    healthy = plain.loss(given).parts
    assert "code_perplexity" not in healthy
    assert float(healthy["embedding_std"]) > 0.1
    for masked in plain.masked:
        torch.nn.init.zeros_(masked.weight_OIK)
    assert float(plain.loss(given).parts["embedding_std"]) < 0.01


# -- sizes and bad input ----------------------------------------------------------------------------


def test_base_is_the_published_size() -> None:
    with torch.device("meta"):
        model = Npc(CONFIGS["base"])
    assert (model.dim, model.num_layers, model.stride) == (512, 9, 160)
    masked = 4 * (512 * 512 * 15 + 512)
    theirs = 19_380_560  # SUPERB: 19.38 M, with masked taps and biases that batch norm cancels
    ours = sum(p.numel() for p in model.parameters())
    missing = 4 * 2 * 512 + masked - 4 * 512 - 512 * 512 * (8 + 6 + 4 + 2)
    assert ours + missing == theirs


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kernel": 10}, "odd kernel"),
        ({"mask": 4}, "odd kernel"),
        ({"blocks": 0}, "at least one block"),
        ({"blocks": 3}, "shorter than the kernel"),
        ({"codes": (6,)}, "as many"),
        ({"code_dims": (10, 15)}, "add up"),
        ({"codes": ()}, "as many"),
        ({"gumbel_temperature": 0.0}, "temperatures positive"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Npc(dataclasses.replace(MICRO, **change))


def test_a_batch_of_one_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="utt0"):
        make(MICRO).loss(batch(300))
    assert make(MICRO).loss(batch(300, 600)).weight == 3
