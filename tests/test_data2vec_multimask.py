"""data2vec 2.0: many masks to one pass of the teacher, against explicit loops in float64."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from data2vec_small import SECOND, build, draw
from waveforms import batch_drawn_on as batch

from mynah.upstream.core.bias import slopes
from mynah.upstream.core.data2vec_decoder import ConvDecoder, leave_a_frame, visible
from mynah.upstream.data2vec import Data2Vec


def attend_alone(model: Data2Vec, x_KD: Tensor, places: list[int]) -> Tensor:
    """The student over a few frames at known places: heads, queries and keys in loops."""
    encoder = model.encoder
    heads, width = model.config.heads, model.dim // model.config.heads
    scale_H = encoder.bias.scale_H.clamp_min(0)  # type: ignore[union-attr]
    y_KD = F.layer_norm(x_KD, (model.dim,), encoder.norm.weight, encoder.norm.bias)
    for layer in encoder.stack():
        q_KD, k_KD, v_KD = layer.attn.q(y_KD), layer.attn.k(y_KD), layer.attn.v(y_KD)
        mixed_KD = torch.zeros_like(y_KD)
        for h, slope in enumerate(slopes(heads)):
            part = slice(h * width, (h + 1) * width)
            for i, here in enumerate(places):
                scores = [
                    q_KD[i, part] @ k_KD[j, part] / math.sqrt(width)
                    - slope * abs(here - there) * scale_H[h]
                    for j, there in enumerate(places)
                ]
                weights = torch.stack(scores).softmax(0)
                mixed_KD[i, part] = sum(w * v for w, v in zip(weights, v_KD[:, part], strict=True))  # type: ignore[assignment]
        y_KD = layer.norm1(y_KD + layer.attn.o(mixed_KD))
        y_KD = layer.norm2(y_KD + layer.ff2(F.gelu(layer.ff1(y_KD))))
    return y_KD


@pytest.mark.parametrize("width", [32, 48], ids=["narrow", "as wide as the encoder"])
@torch.no_grad()
def test_second_version_equals_explicit_loops(width: int) -> None:
    model = build(dataclasses.replace(SECOND, decoder_dim=width)).eval()
    assert model.decoder is not None
    assert model.teacher is not None
    data = batch(5000, 3500)
    mask_RT, noise_MD = draw(model, data)
    assert noise_MD is not None
    loss = model.regress(data.wavs(), mask_RT, noise_MD)
    model.double()
    total, used = 0.0, 0
    for row, mask_T in enumerate(mask_RT.tolist()):
        wav_S = data.wavs()[row // 3]
        raw_1TC = model.frontend.raw([wav_S])[0].double()
        x_1TD = model.frontend.proj(model.frontend.norm(raw_1TC))
        frames = x_1TD.shape[1]
        fed: list[Tensor] = []
        model.teacher(x_1TD, fed=fed)
        targets = [
            (y_TD - y_TD.mean(0)) / (y_TD.var(0, correction=0) + 1e-5).sqrt()
            for y_TD in (fed[1][0], fed[2][0])
        ]
        target_TD = (targets[0] + targets[1]) / 2
        hidden = [t for t in range(frames) if mask_T[t]]
        seen = [t for t in range(frames) if not mask_T[t]]
        zeroed_1TD = x_1TD.clone()
        zeroed_1TD[:, hidden] = 0.0
        placed_TD = (zeroed_1TD + model.encoder.pos(zeroed_1TD))[0]  # type: ignore[misc]
        heard_KD = attend_alone(model, placed_TD[seen], seen)
        y_TD = torch.zeros_like(placed_TD)
        y_TD[seen] = heard_KD
        for t in hidden:
            y_TD[t] = noise_MD[used].double()
            used += 1
        for conv in model.decoder.convs:
            z_TD = F.conv1d(
                y_TD.T[None], conv.weight, conv.bias, padding=2, groups=16
            )[0].T  # fmt: skip
            z_TD = (z_TD - z_TD.mean(1, keepdim=True)) / (
                z_TD.var(1, correction=0, keepdim=True) + 1e-5
            ).sqrt()
            z_TD = F.gelu(z_TD)
            y_TD = z_TD + y_TD if z_TD.shape == y_TD.shape else z_TD
        predicted_TD = model.decoder.proj(y_TD)
        for t in hidden:
            total += float(((predicted_TD[t] - target_TD[t]) ** 2).sum()) / math.sqrt(48)
    assert used == len(noise_MD) == loss.weight
    assert float(loss.total) == pytest.approx(total / used, rel=1e-5)


def test_the_encoder_never_sees_masked_frames() -> None:
    model = build(SECOND).eval()
    data = batch(9000)
    mask_RT, noise_MD = draw(model, data)
    mask_RT = mask_RT[:1].expand(3, -1)  # the clones hide the same frames
    noise_MD = torch.randn(int(mask_RT.sum()), 48)
    lengths: list[int] = []
    model.encoder.layers[0].register_forward_pre_hook(
        lambda _, args: lengths.append(args[0].shape[1])
    )
    with torch.no_grad():
        frames = model.frames(data.wavs())
        louder = frames._replace(x_BTD=frames.x_BTD + 9.0 * mask_RT[:1, :, None])
        one, other = (model._fill_in(f, mask_RT, noise_MD) for f in (frames, louder))
    assert torch.equal(one, other)
    assert lengths == [int((~mask_RT[0]).sum())] * 2
    assert lengths[0] < 0.8 * mask_RT.shape[1]


def test_clones_share_one_pass_of_the_teacher_and_differ_in_masks() -> None:
    model = build(SECOND).eval()
    assert model.teacher is not None
    rows: list[int] = []
    model.teacher.layers[0].register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    data = batch(16000, 16000)
    model.loss(data)
    assert rows == [2]
    mask_RT = model.draw_mask(data)
    assert len(mask_RT) == 6
    assert len({tuple(row) for row in mask_RT.tolist()}) == 6
    assert len(set(mask_RT.sum(dim=1).tolist())) == 1  # equal lengths: equally many
    assert "mask_emb" not in model.state_dict()


def test_short_utterances_leave_a_frame() -> None:
    mask_RT = torch.tensor([[True, True, False], [True, True, True], [True, False, True]])
    valid_RT = torch.tensor([[True, True, False], [True, True, True], [True, True, True]])
    left_RT = leave_a_frame(mask_RT, valid_RT)
    assert left_RT.tolist() == [[False, True, False], [False, True, True], [True, False, True]]
    seen = visible(left_RT, valid_RT)
    assert seen.index_RK.tolist() == [[0], [0], [1]]
    assert seen.padding_RK is None
    model = build(SECOND).train()
    for seed in range(3):
        loss = model.loss(batch(1, 300, 1000, seed=seed))
        loss.total.backward()
        assert math.isfinite(float(loss.total.detach()))
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_visible_frames_go_back_to_their_places() -> None:
    torch.manual_seed(0)
    x_RTD = torch.randn(3, 7, 2)
    valid_RT = torch.arange(7) < torch.tensor([7, 4, 6])[:, None]
    mask_RT = (torch.rand(3, 7) < 0.4) & valid_RT
    seen = visible(mask_RT, valid_RT)
    assert seen.padding_RK is not None
    noise_MD = torch.randn(int(mask_RT.sum()), 2)
    y_RTD = seen.put(seen.take(x_RTD), mask_RT, noise_MD)
    used = 0
    for r in range(3):
        for t in range(7):
            expected = x_RTD[r, t] if valid_RT[r, t] else torch.zeros(2)
            if mask_RT[r, t]:
                expected, used = noise_MD[used], used + 1
            assert torch.equal(y_RTD[r, t], expected)
    for r, places in enumerate(seen.index_RK.tolist()):
        for i, here in enumerate(places):
            for j, there in enumerate(places):
                assert int(seen.distances()[r, i, j]) == there - here


def test_the_second_version_needs_noise() -> None:
    model = build(SECOND)
    data = batch(16000)
    with pytest.raises(ValueError, match="noise_MD"):
        model.regress(data.wavs(), model.draw_mask(data))


def test_the_decoder_does_not_see_padding() -> None:
    torch.manual_seed(0)
    decoder = ConvDecoder(16, width=16, kernel=3, groups=4, depth=3, dropout=0.0)
    mask_RT = torch.tensor([[False, True, False, False], [True, False, False, False]])
    valid_RT = torch.tensor([[True] * 4, [True, True, False, False]])
    seen = visible(mask_RT, valid_RT)
    x_RKD = seen.take(torch.randn(2, 4, 16))
    noise_MD = torch.randn(2, 16)
    both = decoder(x_RKD, seen, mask_RT, noise_MD, valid_RT)
    alone = visible(mask_RT[1:, :2], valid_RT[1:, :2])
    one = decoder(x_RKD[1:, :1], alone, mask_RT[1:, :2], noise_MD[1:])
    assert torch.allclose(both[1, :2], one[0], atol=1e-6)
