"""BYOL-A: states, clip embeddings, loss and average against the published code; SimSiam; views."""

import dataclasses
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.byol import CONFIGS, Byol, Config
from mynah.upstream.core.audiontt import AudioNTT, pool
from mynah.upstream.core.clips import projector
from mynah.upstream.core.contract import Batch

MICRO: dict[str, Any] = {
    "num_mels": 16,
    "window": 400,
    "channels": (4, 6, 8),
    "embed_dim": 24,
    "dropout": 0.0,
    "memory": 12,
    "projector": (20, 10),
    "predictor": 14,
    "least_clips": 6,
    "clip_seconds": 0.3,
}
LENGTHS = (1300, 8000, 15999, 16000, 40123)


def make(**settings: Any) -> Byol:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Byol(Config(**{**MICRO, **settings}))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(*sizes: int, seed: int = 2) -> Batch:
    wav_BS = torch.zeros(len(sizes), max(sizes))
    for row, n in enumerate(sizes):
        wav_BS[row, :n] = 0.1 * noise(n, seed=row)
    return Batch(
        wav_BS=wav_BS,
        lengths_B=torch.tensor(sizes),
        ids=tuple(f"utt{i}" for i in range(len(sizes))),
        generator=torch.Generator().manual_seed(seed),
    )


# -- the published code ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def byol_a() -> ModuleType:
    s3prl = pytest.importorskip("mynah.upstream.interop.s3prl")
    s3prl.ensure_importable()
    return importlib.import_module("s3prl.upstream.byol_a.byol_a")


def published_encoder(byol_a: ModuleType, mels: int, dim: int) -> Any:
    """Return AudioNTT2020 with random weights, biases and batch statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        encoder = byol_a.AudioNTT2020(n_mels=mels, d=dim)
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.get_buffer("running_mean").normal_()
                module.get_buffer("running_var").uniform_(0.5, 2)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
            elif isinstance(module, nn.Conv2d):
                assert module.bias is not None
                nn.init.normal_(module.bias)
    return encoder.eval()


def take(ours: AudioNTT, theirs: Any) -> None:
    """Copy a published encoder; without its convolutions' bias it computes the same in training."""
    for depth, block in enumerate(ours.blocks):
        conv, norm = theirs.features[4 * depth], theirs.features[4 * depth + 1]
        block.conv.weight.data.copy_(conv.weight.data)
        block.norm.load_state_dict(norm.state_dict())
        block.norm.running_mean.sub_(conv.bias.data)
    ours.fc1.load_state_dict(theirs.fc[0].state_dict())
    ours.fc2.load_state_dict(theirs.fc[3].state_dict())


def test_states_equal_the_published_encoder(byol_a: ModuleType, tmp_path: Path) -> None:
    import torchaudio

    from mynah.upstream.interop import s3prl

    encoder = published_encoder(byol_a, 64, 96)
    torch.save(encoder.state_dict(), tmp_path / "AudioNTT2020-BYOLA-64x96d96.pth")
    ours = s3prl.convert(tmp_path / "AudioNTT2020-BYOLA-64x96d96.pth").freeze()
    assert isinstance(ours, Byol)
    assert (ours.dim, ours.num_layers, ours.stride) == (2048, 4, 320)
    spectrogram = torchaudio.transforms.MelSpectrogram(
        16000, n_fft=1024, win_length=1024, hop_length=160, n_mels=64, f_min=60, f_max=7800
    )
    wavs = [0.1 * noise(n, seed=n) for n in LENGTHS]
    states = [list(part) for part in _split(ours, wavs)]
    for wav, got in zip(wavs, states, strict=True):
        log_mel = (spectrogram(wav) + torch.finfo(torch.float32).eps).log()
        x = byol_a.PrecomputedNorm((-5.4919195, 5.0389895))(log_mel)[None, None]
        expected = []
        with torch.no_grad():
            for depth in range(3):
                x = encoder.features[4 * depth : 4 * depth + 4](x)
                expected.append(x.permute(0, 3, 2, 1).flatten(2)[0])
            expected.append(encoder.fc(expected[-1]))
        count = ours.num_frames(len(wav))
        assert count == (1 + len(wav) // 160) // 2
        for layer, (state, reference) in enumerate(zip(got, expected, strict=True)):
            width, repeat = reference.shape[1], (1, 2, 4, 4)[layer]
            rows = reference.repeat_interleave(repeat, dim=0)[:count]
            rows = torch.cat([rows, rows[-1:].expand(count - len(rows), -1)])
            assert float((state[:, :width] - rows).norm() / rows.norm()) < 1e-5
            assert not state[:, width:].any()


def _split(model: Byol, wavs: list[Tensor]) -> list[list[Tensor]]:
    counts = [model.num_frames(len(wav)) for wav in wavs]
    layers = [state.split(counts) for state in model.hidden_states(wavs)]
    return [[layer[row] for layer in layers] for row in range(len(wavs))]


def test_clip_embedding_equals_s3prls_upstream(byol_a: ModuleType, tmp_path: Path) -> None:
    from mynah.upstream.interop import s3prl

    expert = importlib.import_module("s3prl.upstream.byol_a.expert")
    path = tmp_path / "model.pth"
    torch.save({"state_dict": published_encoder(byol_a, 64, 96).state_dict()}, path)
    upstream = expert.UpstreamExpert(
        str(path), str(Path(str(expert.__file__)).with_name("config.yaml")), 96
    )
    ours = s3prl.convert(path).eval()
    assert isinstance(ours, Byol)
    wav = 0.1 * noise(16000)
    with torch.no_grad():
        expected = upstream([wav])["hidden_states"][0][0, 0]
        got = ours.encoder.embed(ours.spectrum(wav)[None])[0]
    assert float((got - expected).norm() / expected.norm()) < 1e-5


def test_checkpoints_that_do_not_fit_are_refused(byol_a: ModuleType, tmp_path: Path) -> None:
    from mynah.upstream.interop import s3prl

    state = published_encoder(byol_a, 64, 96).state_dict()
    del state["fc.3.bias"]
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"does not fit byol: .*fc\.3\.bias"):
        s3prl.convert(tmp_path / "a.pth")


@pytest.mark.parametrize("training", [False, True])
def test_loss_gradient_and_average_equal_the_published_ones(
    byol_a: ModuleType, training: bool
) -> None:
    published = importlib.import_module("s3prl.upstream.byol_s.byol_a.byol_pytorch")
    encoder = published_encoder(byol_a, 16, 24)
    encoder.fc[2].p = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = published.BYOL(
            encoder, (16, 31), projection_size=10, projection_hidden_size=20,
            moving_average_decay=0.9,
        )  # fmt: skip
    ours = make(channels=(64, 64, 64), projector=(20, 10), predictor=20, decay=0.9)
    pairs = ((ours.projector, theirs.online_encoder.projector),)
    pairs += ((ours.target_projector, theirs.target_encoder.projector),)
    pairs += ((ours.predictor, theirs.online_predictor),)
    for mlp in (theirs.online_encoder.projector, theirs.target_encoder.projector):
        nn.init.zeros_(mlp.lin2.bias)  # it gets no gradient: ours has none
    for head, mlp in pairs:
        head[0].weight.data.copy_(mlp.lin1.weight.data)
        head[1].load_state_dict(mlp.bn.state_dict())
        head[1].running_mean.sub_(mlp.lin1.bias.data)
        head[3].load_state_dict(mlp.lin2.state_dict(), strict=head is ours.predictor)
    take(ours.encoder, theirs.online_encoder.net)
    take(ours.target_encoder, theirs.target_encoder.net)
    with torch.no_grad():  # a target that is not the online network
        for mine, yours in (
            (ours.target_encoder.fc2, theirs.target_encoder.net.fc[3]),
            (ours.target_projector[3], theirs.target_encoder.projector.lin2),
        ):
            change = 0.1 * noise(*mine.weight.shape)
            mine.weight += change
            yours.weight += change
    ours.train(training)
    theirs.train(training)

    a, b = noise(8, 16, 31), noise(8, 16, 31, seed=1)
    norm = importlib.import_module("s3prl.upstream.byol_s.byol_a.augmentations").NormalizeBatch()
    both = norm(torch.cat([a, b])[:, None])
    expected = theirs(both[:8], both[8:])
    loss = ours.compare(a, b)
    assert float(loss.total.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert loss.weight == 8
    expected.backward()
    loss.total.backward()
    for mine, yours in (
        (ours.encoder.blocks[0].conv, theirs.online_encoder.net.features[0]),
        (ours.encoder.fc2, theirs.online_encoder.net.fc[3]),
        (ours.predictor[3], theirs.online_predictor.lin2),
    ):
        difference = (mine.weight.grad - yours.weight.grad).norm() / yours.weight.grad.norm()
        assert float(difference) < 1e-4
    assert all(p.grad is None for p in ours.target_encoder.parameters())
    theirs.update_moving_average()
    ours.after_step(1, 10)
    target = theirs.target_encoder.net
    assert torch.allclose(ours.target_encoder.fc2.weight, target.fc[3].weight, atol=1e-6)
    statistics = ours.target_encoder.blocks[0].norm.running_mean + target.features[0].bias
    assert torch.allclose(statistics, target.features[1].running_mean, atol=1e-5) or not training


# -- SimSiam --------------------------------------------------------------------------------------


def test_simsiam_is_the_mean_cosine_with_the_target_held() -> None:
    model = make(method="simsiam", projector=(20, 20, 10), projector_norm=True)
    names = {name.partition(".")[0] for name, _ in model.named_parameters()}
    assert names == {"encoder", "projector", "predictor"}
    a, b = noise(8, 16, 31), noise(8, 16, 31, seed=1)
    loss = model.compare(a, b)
    both = torch.cat([a, b])
    both = (both - both.mean()) / both.std()
    z = [model.projector(pool(model.encoder(x)[-1])) for x in both.chunk(2)]
    p = [model.predictor(x) for x in z]
    for x in z:  # normalised without an affine map
        assert torch.allclose(x.mean(dim=0), torch.zeros(10), atol=1e-5)
    forth = F.cosine_similarity(p[0], z[1].detach()).mean()
    back = F.cosine_similarity(p[1], z[0].detach()).mean()
    total = 1 - (forth + back) / 2
    assert float(loss.total.detach()) == pytest.approx(float(total.detach()), rel=1e-5)
    assert float(loss.parts["cosine"]) == pytest.approx(1 - float(total.detach()), rel=1e-4)
    weight = model.predictor[0].weight
    (mine,) = torch.autograd.grad(loss.total, weight, retain_graph=True)
    (theirs,) = torch.autograd.grad(total, weight, retain_graph=True)
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-7)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.after_step(1, 10)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# -- views, states, settings ----------------------------------------------------------------------


def test_training_fills_statistics_and_memory_and_evaluation_does_not() -> None:
    model = make().eval()
    model.loss(batch(16000, 9000, 3000))
    assert int(model.norm.count) == int(model.mixup.memory.filled) == 0
    model.train()
    model.loss(batch(16000, 9000, 3000))
    assert int(model.norm.count) == int(model.mixup.memory.filled) == 6  # two clips of each
    model.loss(batch(*[9000] * 7))
    assert int(model.norm.count) == 13
    assert int(model.mixup.memory.filled) == 12


def test_views_are_of_one_clip_and_come_from_the_batch_generator_only() -> None:
    plain = {"mixup": 0.0, "canvas": 1.0, "freq_scale": (1.0, 1.0), "time_scale": (1.0, 1.0)}
    a, b = make(**plain).views(batch(*[16000] * 6))
    assert torch.allclose(a, b, atol=1e-5)
    a, b = make().views(batch(*[16000] * 6))
    assert a.shape == b.shape == (6, 16, 31)
    assert not torch.allclose(a, b, atol=0.1)
    torch.manual_seed(1)
    again = make().views(batch(*[16000] * 6))
    assert torch.equal(a, again[0])
    assert torch.equal(b, again[1])
    other = make().views(batch(*[16000] * 6, seed=3))
    assert not torch.equal(a, other[0])


def test_one_utterance_is_enough_and_short_ones_are_taken() -> None:
    model = make()
    loss = model.loss(batch(20000))
    assert bool(loss.total.isfinite())
    assert loss.weight == 6
    assert bool(model.loss(batch(1, 50, 700)).total.isfinite())


def test_a_resumed_model_goes_on_exactly() -> None:
    first, second = make().train(), make().train()
    first.loss(batch(*[16000] * 6))
    first.after_step(1, 10)
    second.load_state_dict(first.state_dict())
    losses = [float(m.loss(batch(*[16000] * 6, seed=5)).total.detach()) for m in (first, second)]
    assert losses[0] == losses[1]


def test_collapse_is_below_the_floor() -> None:
    model = make().train()
    nn.init.zeros_(model.projector[1].weight)
    nn.init.ones_(model.projector[1].bias)
    parts = model.loss(batch(*[16000] * 8)).parts
    assert set(model.floors) <= set(parts)
    assert float(parts["embedding_std"]) < model.floors["embedding_std"]
    assert float(parts["accuracy"]) == 0
    healthy = make().loss(batch(*[16000] * 8)).parts
    assert float(healthy["embedding_std"]) > 2 * model.floors["embedding_std"]


def test_tiny_states_share_one_width_and_have_20_ms() -> None:
    config = CONFIGS["tiny"]
    model = Byol(dataclasses.replace(config, objective=False))
    assert model.encoder.widths == [320] * 4
    assert model.encoder.strides == [2] * 4
    assert model.stride == 320
    assert model.num_frames(16000) == 50


def test_features_follow_the_learnt_statistics() -> None:
    model = make()
    wav = 0.1 * noise(8000)
    before = torch.stack(list(model.eval().hidden_states([wav])))
    model.norm.update(noise(4, 16, 31) - 3)
    after = torch.stack(list(model.hidden_states([wav])))
    assert not torch.allclose(before, after)
    assert {"norm.mean", "norm.variance"} <= set(model.state_dict())


def test_an_utterance_may_be_normalised_by_itself() -> None:
    """As the tiny variants do: its level does not matter then, and there are no statistics."""
    model = make(normalize="utterance").train()
    model.loss(batch(*[16000] * 6))
    assert not [name for name in model.state_dict() if name.startswith("norm.")]
    model.eval()
    wav = 0.1 * noise(8000)
    loud, quiet = (torch.stack(list(model.hidden_states([w]))) for w in (wav, 0.3 * wav))
    assert float((loud - quiet).norm() / loud.norm()) < 0.01
    assert all(c.normalize == "utterance" for n, c in CONFIGS.items() if n.startswith("tiny"))
    with pytest.raises(ValueError, match=r"'running' or 'utterance', got 'batch'"):
        make(normalize="batch")


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method must be 'byol' or 'simsiam', got 'moco'"):
        make(method="moco")
    with pytest.raises(ValueError, match=r"clip_seconds must be at least 0.08"):
        make(clip_seconds=0.05)
    with pytest.raises(ValueError, match=r"at least one layer"):
        projector(4, (), bias=True, norm=False)
    model = make(objective=False)
    assert {name.partition(".")[0] for name, _ in model.named_parameters()} == {"encoder"}
    with pytest.raises(ValueError, match=r"this byol has no heads \(objective=False"):
        model.loss(batch(16000))
    model.after_step(1, 10)
