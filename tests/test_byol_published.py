"""BYOL-A: states, clip embeddings, loss, gradients and average equal to the published code's."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from byol_small import make, noise

from mynah.recipes.parity.cases_codes import copy_audiontt
from mynah.upstream.byol import Byol

LENGTHS = (1300, 8000, 15999, 16000, 40123)


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
    copy_audiontt(ours.encoder, theirs.online_encoder.net)
    copy_audiontt(ours.target_encoder, theirs.target_encoder.net)
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
