"""DeLoRes: each objective rebuilt by hand from the model's parts, the queue, the key encoder."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream.core.contract import Batch
from mynah.upstream.delores import CONFIGS, Config, Delores

MICRO: dict[str, Any] = {
    "num_mels": 16,
    "window": 400,
    "channels": (4, 6, 8),
    "embed_dim": 24,
    "dropout": 0.0,
    "memory": 12,
    "projector": (20, 20, 10),
    "least_clips": 6,
    "clip_seconds": 0.3,
    "contrast_dim": 8,
    "queue": 20,
}
VIEWS = (16, 31)


def make(**settings: Any) -> Delores:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Delores(Config(**{**MICRO, **settings})).train()


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


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return the cross-correlation matrix of two batches of embeddings, in float64."""
    a, b = (F.batch_norm(x.detach().double(), None, None, training=True) for x in (a, b))
    return a.T @ b / len(a)


def sums(c: Tensor) -> tuple[float, float]:
    on = sum((float(c[i, i]) - 1) ** 2 for i in range(len(c)))
    off = sum(float(c[i, j]) ** 2 for i in range(len(c)) for j in range(len(c)) if i != j)
    return on, off


def embedded(model: Delores, x: Tensor) -> Tensor:
    frames = model.encoder(x)[-1]
    return model.projectors[0](frames.max(dim=1).values + frames.mean(dim=1))


def test_s_is_barlow_twins_on_projected_clip_embeddings() -> None:
    model = make(off_diagonal=0.01, scale=0.5)
    a, b = noise(9, *VIEWS), noise(9, *VIEWS, seed=1)
    loss = model.compare(a, b)
    on, off = sums(correlation(embedded(model, a), embedded(model, b)))
    assert float(loss.total.detach()) == pytest.approx(0.5 * (on + 0.01 * off), rel=1e-5)
    assert float(loss.parts["on_diagonal"]) == pytest.approx(on, rel=1e-5)
    assert float(loss.parts["off_diagonal"]) == pytest.approx(off, rel=1e-5)
    assert loss.weight == 9


def test_the_later_codes_loss_is_a_setting() -> None:
    """It is lambda scale on + lambda scale off with lambda = 5e-5 and scale = 1 / 32."""
    model = make(off_diagonal=1.0, scale=1.5625e-6)
    a, b = noise(9, *VIEWS), noise(9, *VIEWS, seed=1)
    on, off = sums(correlation(embedded(model, a), embedded(model, b)))
    expected = 5e-5 * on / 32 + 5e-5 * off / 32
    assert float(model.compare(a, b).total.detach()) == pytest.approx(expected, rel=1e-5)


def test_vicreg_on_projected_clip_embeddings() -> None:
    model = make(method="vicreg", invariance=3.0, variance=2.0, covariance=0.5)
    a, b = noise(9, *VIEWS), noise(9, *VIEWS, seed=1)
    loss = model.compare(a, b)
    z = [embedded(model, x).detach().double() for x in (a, b)]
    apart = float((z[0] - z[1]).square().mean())
    short = sum(float(F.relu(1 - (x.var(dim=0) + 1e-4).sqrt()).mean()) for x in z) / 2
    covs = [torch.cov(x.T) for x in z]
    correlated = sum(float(c.square().sum() - c.diagonal().square().sum()) / 10 for c in covs)
    expected = 3 * apart + 2 * short + 0.5 * correlated
    assert float(loss.total.detach()) == pytest.approx(expected, rel=1e-5)
    assert float(loss.parts["variance"]) == pytest.approx(short, rel=1e-5)


def test_m_is_moco_and_barlow_twins_on_every_block() -> None:
    model = make(method="m", temperature=0.2, off_diagonal=0.01, scale=0.5)
    with torch.no_grad():  # keys from another encoder
        model.key_encoder.fc2.weight += 0.1 * noise(24, 24)
    queue = model.queue.rows_QD.double().clone()
    a, b = noise(9, *VIEWS), noise(9, *VIEWS, seed=1)
    loss = model.compare(a, b)

    def vectors(encoder: Any, head: Any, x: Tensor) -> tuple[list[Tensor], Tensor]:
        *blocks, last = encoder(x)
        clip = head(last.max(dim=1).values + last.mean(dim=1)).detach().double()
        return [block.mean(dim=1) for block in blocks], F.normalize(clip, dim=1)

    blocks_q, q = vectors(model.encoder, model.contrast, a)
    blocks_k, k = vectors(model.key_encoder, model.key_contrast, b)
    logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ queue.T], dim=1) / 0.2
    nce = float((logits.logsumexp(dim=1) - logits[:, 0]).mean())
    barlow = 0.0
    for project, x, y in zip(model.projectors, blocks_q, blocks_k, strict=True):
        on, off = sums(correlation(project(x), project(y)))
        barlow += 0.5 * (on + 0.01 * off)
    assert [x.shape[1] for x in blocks_q] == [4 * 8, 6 * 4, 8 * 2]
    assert float(loss.parts["nce"]) == pytest.approx(nce, rel=1e-5)
    assert float(loss.parts["barlow"]) == pytest.approx(barlow, rel=1e-5)
    assert float(loss.total.detach()) == pytest.approx(nce + barlow, rel=1e-5)
    assert torch.allclose(model.queue.rows_QD[:9].double(), k, atol=1e-6)
    assert torch.equal(model.queue.rows_QD[9:].double(), queue[9:])


def test_m_keys_follow_slowly_and_get_no_gradient() -> None:
    model = make(method="m", decay=0.9)
    model.loss(batch(*[16000] * 6)).total.backward()
    teachers = [*model.key_encoder.parameters(), *model.key_contrast.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in teachers)
    statistics = model.key_encoder.blocks[0].norm.running_mean.clone()
    old = model.key_contrast.weight.clone()
    with torch.no_grad():
        model.contrast.weight += 1
    model.after_step(1, 10)
    assert torch.allclose(model.key_contrast.weight, old + 0.1, atol=1e-6)
    assert torch.equal(model.key_encoder.blocks[0].norm.running_mean, statistics)
    assert bool(statistics.any())  # its own forward passes gathered them


def test_m_queue_fills_in_training_only_and_is_saved() -> None:
    model = make(method="m")
    model.eval().loss(batch(*[16000] * 6))
    assert int(model.queue.filled) == 0
    model.train()
    for _ in range(4):
        model.loss(batch(*[16000] * 6)).total.backward()
    assert int(model.queue.filled) == 20
    again = make(method="m")
    again.load_state_dict(model.state_dict())
    losses = [float(m.loss(batch(*[9000] * 6)).total.detach()) for m in (model, again)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("method", ["s", "m", "vicreg"])
def test_objectives_fall_on_one_batch(method: str) -> None:
    model = make(method=method, scale=1 / 10)
    data = batch(*[16000] * 12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for step in range(1, 41):
        loss = model.loss(data)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        model.after_step(step, 40)
        history.append(loss)
    first, last = (
        {key: sum(float(h.parts[key]) for h in part) for key in part[0].parts}
        for part in (history[:5], history[-5:])
    )
    # the same few sounds again and again are their own negatives in the queue: its term cannot fall
    falling = {"s": "on_diagonal", "m": "barlow", "vicreg": "variance"}[method]
    assert last[falling] < 0.9 * first[falling]
    assert last["accuracy"] > first["accuracy"] or method == "m"
    assert last["embedding_std"] / 5 > model.floors["embedding_std"]


def test_collapse_is_below_the_floor() -> None:
    for method in ("s", "vicreg", "m"):
        model = make(method=method)
        head = model.contrast if method == "m" else model.projectors[0][0]
        torch.nn.init.zeros_(head.weight)
        if method == "m":
            torch.nn.init.ones_(head.bias)
        parts = model.loss(batch(*[16000] * 8)).parts
        assert set(model.floors) <= set(parts)
        assert float(parts["embedding_std"]) < model.floors["embedding_std"]


def test_variants() -> None:
    assert CONFIGS["base"] == CONFIGS["s"]
    assert {name: config.method for name, config in CONFIGS.items()} == {
        "base": "s",
        "s": "s",
        "m": "m",
        "vicreg": "vicreg",
        "tiny": "s",
        "tiny-m": "m",
        "tiny-vicreg": "vicreg",
    }


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"method must be 's', 'm' or 'vicreg', got 'x'"):
        make(method="x")
    model = make(objective=False)
    with pytest.raises(ValueError, match=r"this delores has no heads"):
        model.loss(batch(16000))
    model.after_step(1, 10)


# -- the authors' checkpoints ---------------------------------------------------------------------


def published(width: int, mels: int) -> nn.ModuleDict:
    """Return the encoder as LAPE names its parts, with random weights and batch statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        parts = nn.ModuleDict()
        for number, inputs in ((1, 1), (2, 8), (3, 8)):
            conv, norm = nn.Conv2d(inputs, 8, 3, padding=1), nn.BatchNorm2d(8)
            norm.get_buffer("running_mean").normal_()
            norm.get_buffer("running_var").uniform_(0.5, 2)
            nn.init.normal_(norm.bias)
            parts[f"features_{number}"] = nn.Sequential(conv, norm, nn.ReLU(), nn.MaxPool2d(2))
        parts["fc"] = nn.Sequential(
            nn.Linear(mels, width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(width, width), nn.ReLU()
        )
    return parts.eval()


@pytest.mark.parametrize(("method", "prefix"), [("s", "encoder"), ("m", "encoder_q")])
def test_states_equal_the_authors_encoder(tmp_path: Path, method: str, prefix: str) -> None:
    from mynah.upstream.interop import s3prl

    encoder = published(24, 64)
    state = {f"{prefix}.encoder.{name}": value for name, value in encoder.state_dict().items()}
    if method == "m":
        other = published(24, 64).state_dict()
        state.update({f"encoder_k.encoder.{name}": 0 * value for name, value in other.items()})
        state |= {"encoder_q.fc.weight": torch.ones(4, 24), "queue": torch.ones(4, 8)}
    state["p.projector.0.weight"] = torch.ones(3, 24)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "final.ckpt")
    ours = s3prl.convert(tmp_path / "final.ckpt").freeze()
    assert isinstance(ours, Delores)
    assert (ours.config.method, ours.config.objective) == (method, False)
    assert (ours.dim, ours.num_layers, ours.stride) == (256, 4, 320)
    wav = 0.1 * torch.randn(8000, generator=torch.Generator().manual_seed(0))
    x = ours.spectrum(wav)[None, None]
    got = list(ours.hidden_states([wav]))
    with torch.no_grad():
        for layer in range(3):
            x = encoder[f"features_{layer + 1}"](x)
            rows = x.permute(0, 3, 2, 1).flatten(2)[0]
            check_rows(got[layer], rows.repeat_interleave(2**layer, dim=0))
        check_rows(got[3], encoder["fc"](rows).repeat_interleave(4, dim=0))


def check_rows(state_ND: Tensor, rows_TW: Tensor) -> None:
    """Compare the frames that both have; ours repeats the last one up to its number of frames."""
    count = min(len(state_ND), len(rows_TW))
    assert len(state_ND) - count < 4
    torch.testing.assert_close(
        state_ND[:count, : rows_TW.shape[1]], rows_TW[:count], rtol=1e-4, atol=1e-5
    )


def test_what_lightning_keeps_beside_the_weights_is_not_run(tmp_path: Path) -> None:
    from mynah.upstream.interop import s3prl

    state = {f"encoder.encoder.{k}": v for k, v in published(24, 64).state_dict().items()}
    kind = type("AudioNTT2020Task6", (), {"__module__": "src.encoder.audiontt"})
    package = SimpleNamespace(AudioNTT2020Task6=kind)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("src", "src.encoder", "src.encoder.audiontt"):
            patch.setitem(sys.modules, name, package)
        content = {"state_dict": state, "hyper_parameters": {"base_encoder": kind}}
        torch.save(content, tmp_path / "final.ckpt")
    assert s3prl.convert(tmp_path / "final.ckpt").name == "delores"
    assert "src.encoder.audiontt" not in sys.modules
    del state["encoder.encoder.fc.3.bias"]
    torch.save({"state_dict": state}, tmp_path / "short.ckpt")
    with pytest.raises(ValueError, match=r"does not fit delores: .*fc\.3\.bias"):
        s3prl.convert(tmp_path / "short.ckpt")
