"""Mockingjay, TERA, AudioALBERT: corruption, objective, positions, pieces of long inputs."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from padded import batch

from mynah.upstream.core.contract import Batch
from mynah.upstream.core.corruption import corrupt, frequency_band, magnitude_noise
from mynah.upstream.mockingjay import CONFIGS, Config, Mockingjay, _cut, positions

MICRO = Config(num_mels=20, dim=24, layers=2, heads=3, ffn=48, dropout=0.0, attention_dropout=0.0)
SHARES = {"prob": 0.15, "length": 7, "zero_share": 0.8, "swap_share": 0.1}


def make(config: Config) -> Mockingjay:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Mockingjay(config)


def test_corruption_has_the_published_shares() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [corrupt(400, **SHARES, generator=generator) for _ in range(1000)]
    zeroed = [not bool(c.keep_T.all()) for c in drawn]
    swapped = [bool((c.source_T != torch.arange(400)).any()) for c in drawn]
    assert not any(z and s for z, s in zip(zeroed, swapped, strict=True))
    assert 0.76 < sum(zeroed) / 1000 < 0.84
    assert 0.07 < sum(swapped) / 1000 < 0.13
    for change, zero in zip(drawn, zeroed, strict=True):
        assert 7 <= int(change.chosen_T.sum()) <= 63  # round(400 * 0.15 / 7) = 9 spans of 7
        touched = (change.source_T != torch.arange(400)) | ~change.keep_T
        assert not (touched & ~change.chosen_T).any()
        if zero:
            assert torch.equal(~change.keep_T, change.chosen_T)
    # nine random spans of 7 among 393 starts hardly ever overlap all: about 14.7 % are chosen
    share = torch.stack([change.chosen_T for change in drawn]).float().mean()
    assert 0.138 < share < 0.152
    assert not any(bool(change.chosen_T[399]) for change in drawn)  # s3prl never chooses the last


@pytest.mark.parametrize("frames", [1, 3, 7, 8, 23])
def test_short_utterances_get_one_span(frames: int) -> None:
    for seed in range(20):
        change = corrupt(frames, **SHARES, generator=torch.Generator().manual_seed(seed))
        assert int(change.chosen_T.sum()) == min(7, frames)
        assert int(change.source_T.max()) < frames


def test_loss_is_the_error_on_chosen_frames() -> None:
    model, given = make(MICRO), batch(6400, 16000, 3000)
    loss = model.loss(given)
    generator = torch.Generator().manual_seed(2)
    errors, wanted = [], []
    wavs = [wav[:n] for wav, n in zip(given.wav_BS, given.lengths_B.tolist(), strict=True)]
    spectra = [model.spectra([wav])[0] for wav in wavs]
    for x_TM in spectra:
        change = corrupt(len(x_TM), **SHARES, generator=generator)
        seen = x_TM[change.source_T] * change.keep_T[:, None]
        hidden = model.proj(seen) + positions(len(x_TM), 24, x_TM.device)
        predicted = model.head(model.encoder(hidden[None])[-1][0])
        errors.append((predicted - x_TM)[change.chosen_T].abs())
        wanted.append(x_TM[change.chosen_T].abs())
    assert loss.total.item() == pytest.approx(torch.cat(errors).mean().item(), rel=1e-4)
    assert loss.parts["mean"].item() == pytest.approx(torch.cat(wanted).mean().item(), rel=1e-5)
    assert loss.weight == sum(map(len, errors))


def test_masks_come_from_the_batch_generator_only() -> None:
    model = make(MICRO).eval()
    first = model.loss(batch(16000, 9000, seed=3)).total.item()
    torch.manual_seed(99)
    assert model.loss(batch(16000, 9000, seed=3)).total.item() == first
    assert model.loss(batch(16000, 9000, seed=4)).total.item() != first


def test_linear_target_has_201_normalised_bins() -> None:
    model = make(Config(num_mels=20, dim=24, layers=1, heads=3, ffn=48, target="linear"))
    x_NM, y_NO, counts = model.spectra([torch.rand(3200) - 0.5, torch.rand(4000) - 0.5])
    assert (x_NM.shape[1], y_NO.shape[1]) == (20, 201)
    for part in y_NO.split(counts):
        assert part.mean(0).abs().max() < 1e-4
        assert (part.std(0) - 1).abs().max() < 1e-3
    assert model.loss(batch(6400)).total.requires_grad


def test_hidden_states_are_the_trainable_encoder_s() -> None:
    model = make(MICRO).eval()
    wav = batch(16000).wav_BS[0]
    x_TM, _, _ = model.spectra([wav])
    expected = model.encoder((model.proj(x_TM) + positions(len(x_TM), 24, x_TM.device))[None])
    states = list(model.freeze().hidden_states([torch.rand(900), wav]))
    assert len(states) == model.num_layers == 3
    skip = model.num_frames(900)
    for got, want in zip(states, expected, strict=True):
        assert (got[skip:] - want[0]).norm() / want.norm() < 1e-5


def test_long_inputs_are_cut_into_equal_pieces() -> None:
    assert _cut(1500, 1500) == [1500]
    assert _cut(1501, 1500) == [751, 750]
    assert _cut(3001, 1500) == [1001, 1001, 999]
    for frames in (1, 7, 1500, 1501, 4000):
        chunks = torch.arange(frames).chunk(-(-frames // 1500))  # what s3prl does
        assert _cut(frames, 1500) == [len(chunk) for chunk in chunks]
    model = make(Config(num_mels=20, dim=24, layers=2, heads=3, ffn=48, max_frames=50)).freeze()
    wav = batch(16000).wav_BS[0]
    whole = list(model.hidden_states([wav]))[-1]
    x_TM, _, _ = model.spectra([wav])
    assert _cut(101, 50) == [34, 34, 33]
    piece = model.proj(x_TM[34:68]) + positions(34, 24, wav.device)
    expected = model.encoder.eval()(piece[None])[-1][0]
    assert (whole[34:68] - expected).norm() / expected.norm() < 1e-5


def test_positions_are_sinusoids() -> None:
    table = positions(3, 4, torch.device("cpu"))
    t = torch.tensor([0.0, 1.0, 2.0])
    expected = torch.stack([t.sin(), t.cos(), (t / 100).sin(), (t / 100).cos()], dim=1)
    assert (table - expected).abs().max() < 1e-6


def test_a_few_steps_beat_the_mean_spectrum() -> None:
    model = make(Config(num_mels=20, dim=48, layers=1, heads=3, ffn=96, dropout=0.0, stack=2))
    time = torch.arange(16000) / 16000
    wav_BS = torch.stack(
        [torch.sin(2 * torch.pi * (f + 300 * torch.sin(8 * time)) * time) for f in (400, 900, 1700)]
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    totals: list[Tensor] = []
    for step in range(80):
        given = Batch(
            wav_BS=wav_BS,
            lengths_B=torch.tensor([16000] * 3),
            ids=tuple("abc"),
            generator=torch.Generator().manual_seed(step),
        )
        optimiser.zero_grad()
        loss = model.loss(given)
        loss.total.backward()
        optimiser.step()
        totals.append(loss.total.detach() / loss.parts["mean"])
    assert torch.stack(totals[-10:]).mean() < 0.7


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="mel"):
        make(Config(target="mfcc"))
    with pytest.raises(ValueError, match="band_share"):
        make(Config(target="linear", band_share=0.2))
    with pytest.raises(ValueError, match="share must be"):
        frequency_band(20, share=1.0, generator=torch.Generator())


@pytest.mark.parametrize(
    ("variant", "parameters"),
    [
        ("base", 21_327_360),
        ("large", 85_118_208),
        ("tera", 21_327_360),
        ("audio_albert", 7_151_616),
    ],
)
def test_published_sizes(variant: str, parameters: int) -> None:
    with torch.device("meta"):
        model = Mockingjay(CONFIGS[variant])
    # the published counts leave the head out
    count = sum(p.numel() for key, p in model.named_parameters() if not key.startswith("head"))
    assert count == parameters


# -- TERA ----------------------------------------------------------------------------------------


def test_bands_have_the_published_widths() -> None:
    generator = torch.Generator().manual_seed(0)
    bands = torch.stack(
        [frequency_band(80, share=0.2, generator=generator) for _ in range(17 * 200)]
    )
    widths = bands.sum(dim=1)
    assert widths.unique().tolist() == list(range(17))
    assert widths.bincount().min() > 140  # uniform: 200 each
    edges = (bands[:, 1:] != bands[:, :-1]).sum(dim=1)
    assert edges.max() <= 2  # one piece
    assert not bands[:, 79].any()  # s3prl never hides the highest bin
    assert bands[:, 78].any()
    assert bands[:, 0].any()


def test_noise_falls_on_whole_batches() -> None:
    generator = torch.Generator().manual_seed(0)
    x_NM = torch.ones(50, 20)
    drawn = [magnitude_noise(x_NM, prob=0.15, std=0.2, generator=generator) for _ in range(1000)]
    noisy = [y_NM - x_NM for y_NM in drawn if not torch.equal(y_NM, x_NM)]
    assert 0.12 < len(noisy) / 1000 < 0.18
    assert (torch.stack(noisy).std() - 0.2).abs() < 0.002
    assert all(bool((noise != 0).float().mean() > 0.99) for noise in noisy)


@pytest.mark.parametrize("stack", [1, 2])
def test_tera_is_asked_for_chosen_frames_and_for_the_band_of_all(stack: int) -> None:
    config = Config(num_mels=20, stack=stack, dim=24, layers=1, heads=3, ffn=48, band_share=0.5)
    model = make(config)
    x_NM = torch.rand(75, 20 * stack) + 1  # nowhere zero
    counts = [40, 35]
    bands = 0
    for seed in range(20):
        seen_NM, wanted_NM = model.corrupted(
            x_NM, counts, generator=torch.Generator().manual_seed(seed)
        )
        for seen, wanted, x in zip(
            seen_NM.split(counts), wanted_NM.split(counts), x_NM.split(counts), strict=True
        ):
            whole_T, band_M = wanted.all(dim=1), wanted.all(dim=0)
            assert torch.equal(wanted, whole_T[:, None] | band_M)
            assert torch.equal(band_M[:20], band_M[-20:])  # the same bins of stacked frames
            assert not seen[:, band_M].any()
            assert torch.equal(seen[~whole_T][:, ~band_M], x[~whole_T][:, ~band_M])
            bands += int(band_M.any())
    assert bands > 30


def test_tera_s_loss_is_the_mean_over_what_is_asked_for() -> None:
    settings = {**vars(MICRO), "band_share": 0.2, "noise_prob": 1.0}
    model, given = make(Config(**settings)), batch(6400, 16000)
    loss = model.loss(given)
    wavs = [wav[:n] for wav, n in zip(given.wav_BS, given.lengths_B.tolist(), strict=True)]
    x_NM, _, counts = model.spectra(wavs)
    seen_NM, wanted_NM = model.corrupted(x_NM, counts, generator=torch.Generator().manual_seed(2))
    assert (seen_NM[wanted_NM] != 0).float().mean() > 0.99  # noise is put on what was zeroed
    errors, means = [], []
    for seen, wanted, x in zip(
        seen_NM.split(counts), wanted_NM.split(counts), x_NM.split(counts), strict=True
    ):
        hidden = model.proj(seen) + positions(len(x), 24, x.device)
        predicted = model.head(model.encoder(hidden[None])[-1][0])
        errors.append((predicted - x)[wanted].abs())
        means.append(x[wanted].abs())
    assert loss.total.item() == pytest.approx(torch.cat(errors).mean().item(), rel=1e-4)
    assert loss.parts["mean"].item() == pytest.approx(torch.cat(means).mean().item(), rel=1e-5)
    assert loss.weight == pytest.approx(sum(map(len, errors)) / 20)


# -- AudioALBERT ---------------------------------------------------------------------------------


def test_a_shared_layer_is_one_set_of_weights_with_the_gradient_of_all_its_uses() -> None:
    shared, given = make(Config(**{**vars(MICRO), "shared": True})), batch(8000)
    unshared = make(MICRO)
    state = {
        key: shared.state_dict()[key.replace("layers.1.", "layers.0.")]
        for key in unshared.state_dict()
    }
    unshared.load_state_dict(state)
    shared.loss(given).total.backward()
    given.generator.manual_seed(2)
    unshared.loss(given).total.backward()
    one, *rest = (dict(layer.named_parameters()) for layer in unshared.encoder.layers)
    for key, weight in shared.encoder.layers[0].named_parameters():
        summed = one[key].grad + rest[0][key].grad
        assert (weight.grad - summed).abs().max() <= 1e-5 * summed.abs().max() + 1e-9
