"""MoCo: the queue, the key network, views, and that it learns to tell sounds apart."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from mynah.upstream.core.contract import Batch
from mynah.upstream.moco import CONFIGS, Moco


def small(**changes: Any) -> Moco:
    torch.manual_seed(0)
    values = {"dim": 32, "heads": 2, "ffn": 48, "layers": 2, "hidden": 32, "final_dim": 16}
    values |= {"queue": 24, "dropout": 0.0, "attention_dropout": 0.0, "input_dropout": 0.0}
    return Moco(dataclasses.replace(CONFIGS["tiny"], **{**values, **changes}))


def tones(count: int = 16, *, seed: int = 0) -> Batch:
    """Utterances that differ in pitch: each its own, in noise."""
    generator = torch.Generator().manual_seed(seed)
    time = torch.arange(16000) / 16000
    rows = []
    for index in range(count):
        pitch = 150.0 * 1.22**index
        rows.append(
            0.1 * torch.sin(2 * torch.pi * pitch * time)
            + 0.1 * torch.sin(4 * torch.pi * pitch * time)
        )
    wav_BS = torch.stack(rows) + 0.003 * torch.randn(count, 16000, generator=generator)
    return Batch(
        wav_BS=wav_BS,
        lengths_B=torch.full((count,), 16000),
        ids=tuple(map(str, range(count))),
        generator=generator,
    )


def test_the_loss_is_one_positive_against_the_queue() -> None:
    model = small(reverb_share=0.0).eval()
    data = tones(4)
    loss = model.loss(data)
    again = tones(4)
    q_BP = model.query(model.view(again.wavs(), again.generator)).detach().double()
    k_BP = model.key(model.view(again.wavs(), again.generator)).double()
    total = 0.0
    for q, k in zip(q_BP, k_BP, strict=True):
        q, k = q / q.norm(), k / k.norm()
        logits = torch.cat([(q @ k)[None], model.queue.rows_QD.double() @ q]) / 0.1
        total -= float(logits[0] - logits.logsumexp(0)) / 4
    assert loss.total.item() == pytest.approx(total, rel=1e-5)


def test_keys_enter_the_queue_in_training_only() -> None:
    model = small()
    before = model.queue.rows_QD.clone()
    model.eval().loss(tones(4))
    assert torch.equal(model.queue.rows_QD, before)
    model.train().loss(tones(4))
    changed = (model.queue.rows_QD != before).any(dim=1)
    assert changed.tolist() == [True] * 4 + [False] * 20
    assert torch.allclose(model.queue.rows_QD.norm(dim=1), torch.ones(24), atol=1e-5)


def test_the_key_network_follows_without_gradient() -> None:
    model = small(decay=0.9).train()
    start = {k: v.clone() for k, v in model.key_encoder.state_dict().items()}
    model.loss(tones(4)).total.backward()
    assert all(p.grad is None for p in model.key_encoder.parameters())
    assert not model.key_encoder.training
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(1.0)
    model.after_step(1, 10)
    for key, value in model.key_encoder.state_dict().items():
        assert torch.allclose(value, start[key] + 0.1, atol=1e-5), key


def test_views_are_stretches() -> None:
    model = small(view_share=0.5, reverb_share=0.0, gain_decibels=0.0, silence_share=0.0)
    model = Moco(dataclasses.replace(model.config, noise_decibels=(200.0, 200.0)))
    data = tones(3)
    for wav, view in zip(data.wavs(), model.view(data.wavs(), data.generator), strict=True):
        assert len(view) == 8000
        windows: Tensor = wav.unfold(0, 8000, 1)
        nearest = (windows[:, ::400] - view[::400]).abs().sum(dim=1).argmin()
        assert torch.allclose(windows[nearest], view, atol=1e-6)


def test_it_learns_to_find_keys() -> None:
    # with a norm over the bins of each frame: steady tones are normalised away over time
    model = small(queue=64, decay=0.99, front_norm=True).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    data = tones()
    found = []
    for step in range(1, 101):
        loss = model.loss(data)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        model.after_step(step, 100)
        found.append((loss.total.item(), float(loss.parts["embedding_std"])))
    # keys of the same utterance are in the queue: with 4 of each among 64, ln 5 is what is left
    full = found[5][0]
    assert sum(loss for loss, _ in found[-5:]) / 5 < 0.85 * full
    assert found[-1][1] > 0.5


def test_refusals() -> None:
    with pytest.raises(ValueError, match="the batch holds one"):
        small().loss(tones(1))
    with pytest.raises(ValueError, match="view_share"):
        small(view_share=0.0)
