"""Auto-encoders: objective against float64 oracles, what the three of them see, learning."""

import copy
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from padded import batch, waves

from mynah.upstream.autoencoder import CONFIGS, Autoencoder, Config
from mynah.upstream.core.contract import Batch, Loss

MICRO = {
    "num_mels": 20, "stack": 2, "dim": 24, "layers": 2, "heads": 3, "ffn": 48, "pos_kernel": 8,
    "pos_groups": 4, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip
PLAIN = Config(latent=6, **MICRO)  # type: ignore[arg-type]
DENOISING = Config(latent=0, noise_prob=0.5, blank_prob=0.15, **MICRO)  # type: ignore[arg-type]
VAE = Config(latent=5, variational=True, **MICRO)  # type: ignore[arg-type]


def make(config: Config, seed: int = 0) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Autoencoder(config)


def layers(model: Autoencoder, x_TM: Tensor) -> list[Tensor]:
    """Return the encoder's states of one utterance, without padding."""
    states = model.encoder(model.frontend.proj(x_TM)[None])
    return [state[0] for state in states]


def test_plain_loss_is_the_mean_error_through_the_bottleneck() -> None:
    model, given = make(PLAIN), batch(6400, 16000, 500)
    loss = model.loss(given)
    double = copy.deepcopy(model).double()
    errors, wanted, codes = [], [], []
    for wav in waves(given):
        x_TM = model.frontend.raw([wav])[0][0].double()
        code_TZ = layers(double, x_TM)[-1] @ double.code.weight.T + double.code.bias
        y_TD = nn.functional.gelu(code_TZ @ double.expand.weight.T + double.expand.bias)
        mean, variance = y_TD.mean(1, keepdim=True), y_TD.var(1, correction=0, keepdim=True)
        norm, last = double.decode[1], double.decode[2]
        y_TD = (y_TD - mean) / (variance + 1e-5).sqrt() * norm.weight + norm.bias
        errors.append((y_TD @ last.weight.T + last.bias - x_TM).abs())
        wanted.append(x_TM.abs())
        codes.append(code_TZ)
    assert loss.total.item() == pytest.approx(torch.cat(errors).mean().item(), rel=1e-5)
    assert loss.parts["mean"].item() == pytest.approx(torch.cat(wanted).mean().item(), rel=1e-5)
    spread = torch.cat(codes).std(dim=0, correction=0).mean().item()
    assert loss.parts["embedding_std"].item() == pytest.approx(spread, rel=1e-5)
    assert loss.weight == sum(map(len, errors))
    assert set(model.floors) <= set(loss.parts)


def elbo(model: Autoencoder, last_ND: Tensor, clean_NM: Tensor, beta: float) -> Mapping[str, float]:
    """Return the variational objective in float64, dimension by dimension."""
    double, config = copy.deepcopy(model).double().requires_grad_(False), model.config
    out_NX = double.code(last_ND.double())
    mean_NZ, logs_NZ = out_NX[:, : config.latent], out_NX[:, config.latent :]
    noise_NZ = torch.randn(mean_NZ.shape, generator=torch.Generator().manual_seed(7)).double()
    sample_NZ = mean_NZ + logs_NZ.exp().sqrt() * noise_NZ
    error = (double.decode(double.expand(sample_NZ)) - clean_NM).abs().mean().item()
    kl = [
        float(-0.5 * (1 + logs_N - mean_N**2 - logs_N.exp()).mean())
        for mean_N, logs_N in zip(mean_NZ.T, logs_NZ.T, strict=True)
    ]
    paid = sum(max(config.free_nats, k) for k in kl)
    # a Laplace density of scale b: ln 2b + |x| / b, at its best scale, b = error
    likelihood = math.log(2 * error) + error / error
    return {"total": likelihood + beta * paid / clean_NM.shape[1], "kl": sum(kl), "l1": error}


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_variational_loss_is_the_bound(beta: float) -> None:
    model = make(VAE)
    with torch.no_grad():
        model.code.weight[:2] *= 3  # some dimensions tell more than what is free, some less
        model.code.weight[2:] *= 0.3
    model.beta.fill_(beta)
    last_ND = torch.randn(50, 24, generator=torch.Generator().manual_seed(5))
    clean_NM = torch.randn(50, 40, generator=torch.Generator().manual_seed(6))
    expected = elbo(model, last_ND, clean_NM, beta)
    loss = model.restore(last_ND, clean_NM, generator=torch.Generator().manual_seed(7))
    for name, value in {"total": loss.total, **loss.parts}.items():
        if name in expected:
            assert value.item() == pytest.approx(expected[name], rel=1e-5)
    assert loss.parts["beta"].item() == pytest.approx(beta)


def test_what_is_free_has_no_gradient_and_the_rest_has_the_divergence_s() -> None:
    model = make(VAE)
    model.beta.fill_(1.0)
    last_ND = torch.randn(50, 24, generator=torch.Generator().manual_seed(5))
    clean_NM = torch.randn(50, 40, generator=torch.Generator().manual_seed(6))

    def slope(free: float) -> Tensor:
        model.config = Config(**{**vars(VAE), "free_nats": free})
        loss = model.restore(last_ND, clean_NM, generator=torch.Generator().manual_seed(7))
        (gradient,) = torch.autograd.grad(loss.total, model.code.weight)
        return gradient

    error_only = slope(1e9)
    model.beta.fill_(0.0)
    assert torch.allclose(slope(0.0), error_only, atol=1e-7)
    model.beta.fill_(1.0)
    out_NX = (last_ND @ model.code.weight.T + model.code.bias).detach().double().requires_grad_()
    mean_NZ, logs_NZ = out_NX[:, :5], out_NX[:, 5:]
    (0.5 * (mean_NZ**2 + logs_NZ.exp() - 1 - logs_NZ).mean(0).sum() / 40).backward()
    assert out_NX.grad is not None
    expected = out_NX.grad.T @ last_ND.double()
    assert (slope(0.0) - error_only - expected).abs().max() < 1e-6


def test_beta_rises_over_its_share_of_the_run_and_is_saved() -> None:
    model = make(Config(**{**vars(VAE), "beta": 2.0}))
    seen = []
    for step in range(1, 51):
        model.after_step(step, 50)
        seen.append(model.beta.item())
    assert seen[:10] == pytest.approx([0.2 * k for k in range(1, 11)])
    assert set(seen[10:]) == {2.0}
    assert "beta" in model.state_dict()
    make(PLAIN).after_step(1, 10)


def test_extreme_variances_stay_finite() -> None:
    model = make(VAE)
    last_ND = torch.full((3, 24), 1e4)
    loss = model.restore(last_ND, torch.zeros(3, 40), generator=torch.Generator())
    assert loss.total.isfinite()
    with torch.no_grad():
        for layer in (model.decode[2], model.code):
            layer.weight.zero_()
            layer.bias.zero_()
    loss = model.restore(last_ND, torch.zeros(3, 40), generator=torch.Generator())
    assert loss.parts["l1"] == 0
    assert loss.total.isfinite()


def test_damage_is_noise_of_the_drawn_level_or_lost_frames() -> None:
    model = make(DENOISING)
    given = batch(*[3200] * 300)
    wavs = waves(given)
    clean_BTM, counts = model.frontend.raw(wavs)
    before = clean_BTM.clone()
    generator = torch.Generator().manual_seed(3)
    seen_BTM = model.damaged(wavs, clean_BTM, counts, generator=generator)
    assert torch.equal(clean_BTM, before)
    shares, noisy = [], 0
    for seen_TM, clean_TM in zip(seen_BTM, clean_BTM, strict=True):
        lost_T = ~seen_TM.any(dim=1)
        if torch.equal(seen_TM[~lost_T], clean_TM[~lost_T]):
            shares.append(lost_T.double().mean().item())
        else:
            noisy += 1
            assert not lost_T.any()
    assert 120 < noisy < 180
    assert 0.12 < sum(shares) / len(shares) < 0.18


@pytest.mark.parametrize("snr", [0.0, 20.0])
def test_noise_has_its_ratio_to_the_signal(snr: float, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**vars(DENOISING), "noise_prob": 1.0, "snr_low": snr, "snr_high": snr}
    model, given = make(Config(**settings)), batch(16000, 9000)
    wavs = waves(given)
    clean_BTM, counts = model.frontend.raw(wavs)
    heard: list[Tensor] = []
    raw = model.frontend.raw
    monkeypatch.setattr(model.frontend, "raw", lambda given: (heard.extend(given), raw(given))[1])
    seen_BTM = model.damaged(wavs, clean_BTM, counts, generator=given.generator)
    assert not seen_BTM[1, counts[1] :].any()
    for noisy_S, wav_S in zip(heard, wavs, strict=True):
        ratio = wav_S.square().mean() / (noisy_S - wav_S).square().mean()
        assert 10 * ratio.log10().item() == pytest.approx(snr, abs=0.2)
    silent = torch.zeros(4000)
    clean_BTM, counts = raw([silent])
    assert not model.damaged([silent], clean_BTM, counts, generator=given.generator).any()


def test_the_clean_spectrum_is_asked_for() -> None:
    model, given = make(DENOISING).eval(), batch(16000, 9000)
    loss = model.loss(given)
    wavs = waves(given)
    clean_BTM, counts = model.frontend.raw(wavs)
    generator = torch.Generator().manual_seed(2)
    seen_BTM = model.damaged(wavs, clean_BTM, counts, generator=generator)
    errors = []
    for seen, clean, count in zip(seen_BTM, clean_BTM, counts, strict=True):
        last_TD = layers(model, seen[:count])[-1]
        errors.append((model.decode(model.expand(last_TD)) - clean[:count]).abs())
    assert loss.total.item() == pytest.approx(torch.cat(errors).mean().item(), rel=1e-5)


@pytest.mark.parametrize("config", [DENOISING, VAE])
def test_randomness_comes_from_the_batch_generator(config: Config) -> None:
    model = make(config)

    def total(seed: int, other: int) -> float:
        torch.manual_seed(other)
        return model.loss(batch(16000, 9000, seed=seed)).total.item()

    assert total(3, 1) == total(3, 2) != total(4, 1)


@pytest.mark.parametrize("config", [PLAIN, DENOISING, VAE])
def test_states_are_the_encoder_s_and_the_expanded_code(config: Config) -> None:
    model = make(config).eval()
    wavs = waves(batch(900, 16000))
    x_TM = model.frontend.raw(wavs[1:])[0][0]
    expected = layers(model, x_TM)
    if config.latent:
        code = model.code
        assert code is not None
        mean_TZ = expected[-1] @ code.weight[: config.latent].T + code.bias[: config.latent]
        expected.append(model.expand(mean_TZ))
    states = list(model.freeze().hidden_states(wavs))
    assert len(states) == model.num_layers == len(expected)
    skip = model.num_frames(900)
    for got, want in zip(states, expected, strict=True):
        assert (got[skip:] - want).norm() / want.norm() < 1e-5


def few_steps(config: Config) -> list[Loss]:
    model = make(config)
    time = torch.arange(16000) / 16000
    wav_BS = torch.stack(
        [torch.sin(2 * torch.pi * (f + 300 * torch.sin(8 * time)) * time) for f in (400, 900, 1700)]
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    seen = []
    for step in range(60):
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
        model.after_step(step + 1, 60)
        seen.append(loss)
    return seen


@pytest.mark.parametrize("config", [PLAIN, DENOISING, VAE])
def test_a_few_steps_beat_the_mean_spectrum_and_the_code_stays_alive(config: Config) -> None:
    last = few_steps(config)[-1].parts
    assert last["l1"] < 0.75 * last["mean"]
    assert last["embedding_std"] > 0.05
    if config.variational:
        assert last["kl"] > 1.0


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="needs latent > 0"):
        make(Config(**{**vars(VAE), "latent": 0}))
    with pytest.raises(ValueError, match="noise_prob must be between 0 and 1, got 1.5"):
        make(Config(**{**vars(DENOISING), "noise_prob": 1.5}))


def test_variants_share_the_encoder_s_size() -> None:
    for prefix, size in (("", 24_000_000), ("tiny-", 1_200_000)):
        for variant in ("base" if not prefix else "", "denoising", "vae"):
            with torch.device("meta"):
                model = Autoencoder(CONFIGS[f"{prefix}{variant}".strip("-")])
            assert size < sum(p.numel() for p in model.parameters()) < 1.3 * size
