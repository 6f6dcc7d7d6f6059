"""APC and VQ-APC against s3prl's, a plain padded GRU stack, and the objective's definition."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from padded import batch, waves

from mynah.upstream.apc import CONFIGS, Apc, Config
from mynah.upstream.core.contract import Batch
from mynah.upstream.core.recurrent import pack_order
from mynah.upstream.interop import s3prl

MICRO = Config(num_mels=20, width=24, layers=3, dropout=0.0, shift=3)


def make(config: Config, seed: int = 0) -> Apc:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Apc(config)


def stack_of(model: Apc, x_TM: Tensor) -> list[Tensor]:
    """Return the states of one utterance by the definition: y = GRU(x) + x from layer 1 on."""
    states: list[Tensor] = []
    for layer in model.layers:
        assert isinstance(layer, nn.GRU)
        below = states[-1] if states else x_TM
        out = layer(below)[0]
        states.append(out + below if states else out)
    return states


def test_states_follow_the_definition_for_every_length_in_one_batch() -> None:
    model = make(MICRO).freeze()
    wavs = waves(batch(300, 9000, 400, 561, 9000, 16000))
    together = list(model.hidden_states(wavs))
    counts = [model.num_frames(len(wav)) for wav in wavs]
    assert len(together) == 3
    for index, wav in enumerate(wavs):
        expected = stack_of(model, model.features([wav])[0])
        for layer in range(3):
            got = together[layer].split(counts)[index]
            assert got.shape == expected[layer].shape
            assert (got - expected[layer]).norm() / expected[layer].norm() < 1e-6


def test_packed_order_goes_step_by_step_longest_first() -> None:
    order, sizes = pack_order([2, 4, 1])
    assert sizes.tolist() == [3, 2, 1, 1]
    assert order.tolist() == [2, 0, 6, 3, 1, 4, 5]


def test_stacked_frames_halve_the_rate() -> None:
    model = make(Config(num_mels=20, width=8, stack=2))
    assert model.stride == 320
    assert [model.num_frames(n) for n in (1, 400, 560, 720, 880)] == [1, 1, 1, 2, 2]
    (first, *_) = model.freeze().hidden_states([torch.rand(720)])
    assert first.shape == (2, 8)


def test_loss_is_the_error_of_the_shifted_prediction_over_valid_frames() -> None:
    model, given = make(MICRO), batch(6400, 3200, 8000)
    errors, copies = [], []
    for wav in waves(given):
        x_TM = model.features([wav])[0]
        predicted = model.predict(stack_of(model, x_TM)[-1])
        errors.append((predicted[:-3] - x_TM[3:]).abs())
        copies.append((x_TM[:-3] - x_TM[3:]).abs())
    loss = model.loss(given)
    assert loss.total.item() == pytest.approx(torch.cat(errors).mean().item(), rel=1e-5)
    assert loss.parts["copy"].item() == pytest.approx(torch.cat(copies).mean().item(), rel=1e-5)
    assert loss.weight == sum(map(len, errors))


def test_loss_over_padding_is_the_mean_of_the_padded_batch() -> None:
    given = batch(6400, 3200)
    config = Config(num_mels=20, width=24, dropout=0.0, shift=3, loss_over_padding=True)
    model = make(config)
    parts = [model.features([wav])[0] for wav in waves(given)]
    longest = max(map(len, parts)) - 3
    predicted = torch.zeros(2, longest, 20)
    predicted += model.predict.bias  # what is predicted from zeros
    wanted = torch.zeros(2, longest, 20)
    for row, x_TM in enumerate(parts):
        n = len(x_TM) - 3
        predicted[row, :n] = model.predict(stack_of(model, x_TM[:n])[-1])
        wanted[row, :n] = x_TM[3:]
    expected = (predicted - wanted).abs().mean().item()
    assert model.loss(given).total.item() == pytest.approx(expected, rel=1e-5)
    model.config = MICRO
    assert abs(model.loss(given).total.item() - expected) > 1e-3


def test_batches_without_a_pair_of_frames_are_refused() -> None:
    model = make(MICRO)
    with pytest.raises(ValueError, match="utt0"):
        model.loss(batch(500))
    assert model.loss(batch(500, 4000)).weight == model.num_frames(4000) - 3


def test_a_few_steps_beat_copying() -> None:
    model = make(Config(num_mels=20, width=48, layers=1, dropout=0.0, shift=3))
    time = torch.arange(8000) / 16000
    wav_BS = torch.stack(
        [
            torch.sin(2 * torch.pi * f * time) * torch.sin(2 * torch.pi * 5 * time)
            + 0.01 * torch.randn(8000, generator=torch.Generator().manual_seed(f))
            for f in (300, 700, 1500, 2900)
        ]
    )
    given = Batch(
        wav_BS=wav_BS,
        lengths_B=torch.tensor([8000] * 4),
        ids=tuple("abcd"),
        generator=torch.Generator(),
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(25):
        optimiser.zero_grad()
        loss = model.loss(given)
        loss.total.backward()
        optimiser.step()
    assert loss.total.item() < 0.8 * loss.parts["copy"].item()


def test_base_is_the_published_size() -> None:
    with torch.device("meta"):
        model = Apc(CONFIGS["base"])
    assert sum(p.numel() for p in model.parameters()) == 4_105_296
    assert (model.dim, model.num_layers, model.stride) == (512, 3, 160)


# -- VQ-APC --------------------------------------------------------------------------------------

VQ = {"codebook_size": [7, 5], "code_dim": [16, 8], "gumbel_temperature": 0.5}


def vq_checkpoint(folder: Path) -> tuple[Path, Any]:
    """Write an s3prl checkpoint of VQ-APC; return it and s3prl's model."""
    s3prl.ensure_importable()
    from s3prl.upstream.apc.apc import APC

    paras = {
        "num_layers": 3, "hidden_size": 24, "dropout": 0.0, "residual": True, "vq": VQ
    }  # fmt: skip
    audio = {"feat_type": "fbank", "feat_dim": 20, "frame_length": 25, "frame_shift": 10}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = APC(20, **paras)
    config = {
        "model": {"paras": paras},
        "task": {"n_future": 3},
        "data": {"audio": {**audio, "decode_wav": False, "cmvn": True}},
    }
    torch.save({"model": theirs.state_dict(), "config": config}, folder / "vq.ckpt")
    return folder / "vq.ckpt", theirs


def test_vq_equals_s3prl_in_features_codes_and_loss(tmp_path: Path) -> None:
    path, theirs = vq_checkpoint(tmp_path)
    ours = s3prl.convert(path)
    assert isinstance(ours, Apc)
    assert (ours.config.codes, ours.config.code_dims) == ((7, 5), (16, 8))
    ours.eval()
    given = batch(6400, 3200, 8000)
    parts = [ours.features([wav])[0] for wav in waves(given)]
    x_BTM = pad_sequence([part[:-3] for part in parts], batch_first=True)
    y_BTM = pad_sequence([part[3:] for part in parts], batch_first=True)
    with torch.no_grad():
        predicted, state = theirs(x_BTM, [len(part) - 3 for part in parts], testing=True)
        expected = (predicted - y_BTM).abs().mean().item()
        loss = ours.loss(given)
    assert loss.total.item() == pytest.approx(expected, rel=1e-5)
    (*_, last) = ours.freeze().hidden_states([waves(given)[2]])  # before quantisation
    own = last[: len(parts[2]) - 3]
    assert (own - state[2, : len(own)]).norm() / own.norm() < 1e-5
    with torch.no_grad():
        vectors, _ = ours.quantizers(state[2])
        _, codes = theirs.vq_layers[1](state[2, :, 16:], testing=True)
    assert (vectors[:, 16:] - codes).abs().max() < 1e-6


def test_vq_draws_noise_from_the_batch_generator_and_trains_every_code_layer() -> None:
    model = make(Config(num_mels=20, width=24, layers=2, dropout=0.0, codes=(6,), code_dims=(24,)))
    totals = []
    for seed in (1, 1, 2):
        given = batch(16000, 9000)
        given.generator.manual_seed(seed)
        torch.manual_seed(seed + 50)
        totals.append(model.loss(given).total)
    assert totals[0].item() == totals[1].item() != totals[2].item()
    totals[0].backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    parts = model.loss(batch(16000)).parts
    assert set(parts) == {"l1", "copy", "code_perplexity"}
    assert 1.0 <= parts["code_perplexity"] <= 6.0
    assert model.floors["code_perplexity"] == 2.0
    plain = make(MICRO)
    assert plain.floors == {"embedding_std": 0.01}
    assert float(plain.loss(batch(16000)).parts["embedding_std"]) > 0.02
    with torch.no_grad():
        for p in plain.layers.parameters():
            p.zero_()
    assert float(plain.loss(batch(16000, 9000)).parts["embedding_std"]) < 0.01


def test_quantisation_does_not_touch_the_features() -> None:
    plain, coded = make(MICRO), make(Config(**{**vars(MICRO), "codes": (6,), "code_dims": (24,)}))
    coded.load_state_dict(plain.state_dict(), strict=False)
    wavs = waves(batch(9000))
    for got, want in zip(coded.hidden_states(wavs), plain.hidden_states(wavs), strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(("codes", "dims"), [((8,), (12,)), ((8, 8), (24,)), ((), (24,))])
def test_groups_that_do_not_fit_are_refused(codes: tuple[int, ...], dims: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="add up to the width 24"):
        make(Config(num_mels=20, width=24, codes=codes, code_dims=dims))


def test_vq_is_the_published_size() -> None:
    with torch.device("meta"):
        model = Apc(CONFIGS["vq"])
    assert sum(p.numel() for p in model.parameters()) == 4_105_296 + 512 * 512 + 512 + 512 * 512


def test_the_authors_weights(tmp_path: Path) -> None:
    """Against their forward pass, written out."""
    torch.manual_seed(0)
    rnns = torch.nn.ModuleList(torch.nn.GRU(n, 24, batch_first=True) for n in (40, 24, 24))
    post = torch.nn.Conv1d(24, 40, 1)
    state = {f"rnns.{key}": value for key, value in rnns.state_dict().items()}
    state |= {f"postnet.layer.{key}": value for key, value in post.state_dict().items()}
    path = tmp_path / "bs32-rhl3-rhs24-rd0.1-adam-res-ts3.pt"
    torch.save(state, path)
    ours = s3prl.convert(path)
    assert isinstance(ours, Apc)
    assert (ours.config.shift, ours.config.dropout, ours.config.layers) == (3, 0.1, 3)
    ours.eval()
    wav = 0.1 * torch.randn(9000)
    with torch.no_grad():
        x_1TD = ours.features([wav])[0][None]
        for index, (rnn, got) in enumerate(zip(rnns, ours.hidden_states([wav]), strict=True)):
            x_1TD = rnn(x_1TD)[0] + (x_1TD if index else 0)
            assert torch.allclose(got, x_1TD[0], atol=1e-6)
        assert torch.allclose(ours.predict(got), post(x_1TD.mT).mT[0], atol=1e-6)


@pytest.mark.parametrize("name", ["apc.pt", "bs32-rhl3-rhs24-rd0-adam-ts3.pt"])
def test_a_name_that_does_not_tell_the_settings_is_refused(tmp_path: Path, name: str) -> None:
    torch.save({"rnns.0.weight_ih_l0": torch.ones(72, 40)}, tmp_path / name)
    with pytest.raises(ValueError, match="the name must be as in bs32-rhl3"):
        s3prl.convert(tmp_path / name)
