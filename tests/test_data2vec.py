"""data2vec: equal to s3prl and Hugging Face; data2vec 2.0 against explicit loops in float64."""

import copy
import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import mynah.upstream
from mynah.upstream.core import modelfolder
from mynah.upstream.core.bias import slopes
from mynah.upstream.core.contract import Batch
from mynah.upstream.core.data2vec_decoder import ConvDecoder, leave_a_frame, visible
from mynah.upstream.core.ema_teacher import layer_targets
from mynah.upstream.core.health import spread
from mynah.upstream.core.masking import span_mask
from mynah.upstream.data2vec import CONFIGS, Config, Data2Vec
from mynah.upstream.interop import keymap

CALM: dict[str, Any] = {
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "layerdrop": 0.0,
    "decoder_dropout": 0.0,
}
SIZE: dict[str, Any] = {"dim": 48, "layers": 3, "heads": 6, "ffn": 96, "top_layers": 2}
WAVE = Config(conv_channels=32, **SIZE, **CALM)
MEL = Config(**{**SIZE, **CALM, "front": "mel", "num_mels": 10, "pos_kernel": 5})
SECOND = dataclasses.replace(
    MEL,
    clones=3,
    bias="alibi",
    mask_prob=0.5,
    mask_length=3,
    decoder_dim=32,
    decoder_kernel=5,
    decoder_depth=3,
)


def build(config: Config, seed: int = 0) -> Data2Vec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Data2Vec(config)
        for p in model.parameters():  # the teacher's move too, so that it is not the student
            p.data += 0.05 * torch.randn_like(p)
    return model


def batch(*lengths: int, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    wavs = [0.1 * torch.randn(n, generator=generator) for n in lengths]
    return Batch(
        wav_BS=torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True),
        lengths_B=torch.tensor(lengths),
        ids=tuple(map(str, lengths)),
        generator=generator,
    )


def draw(model: Data2Vec, data: Batch) -> tuple[Tensor, Tensor | None]:
    """Masks, and noise for the second version."""
    mask_RT = model.draw_mask(data)
    noise_MD = torch.randn(int(mask_RT.sum()), model.dim, generator=data.generator)
    return mask_RT, noise_MD if model.config.clones else None


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


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


# -- data2vec 2.0 ---------------------------------------------------------------------------------


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


def test_the_second_version_needs_noise() -> None:
    model = build(SECOND)
    data = batch(16000)
    with pytest.raises(ValueError, match="noise_MD"):
        model.regress(data.wavs(), model.draw_mask(data))


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


def test_tiny_settings_scale_with_the_run() -> None:
    for name in ("tiny", "tiny2"):
        assert 0 < CONFIGS[name].ema_anneal <= 1
