"""``taco2_ar`` against s3prl's own model and loss, on the same weights; what it adds to them."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F

from mynah.downstream.conversion.core.contract import ConversionBatch, Heard, Sizes
from mynah.downstream.conversion.taco2_ar import CONFIGS, Config, Taco2AR
from mynah.downstream.core.melspec import LogMelSpectrogram, MelSpec
from mynah.recipes.conversion import families
from mynah.recipes.conversion.hearing import Hearing, Input
from mynah.recipes.conversion.trainee import A2O_MEL
from mynah.upstream.core.spec import load

D, M, H, P = 11, 7, 12, 6
SIZES = Sizes(dim=D, spec=MelSpec(num_mels=M), speakers=1)
SMALL = {
    "taco2_ar": Config(hidden=H, prenet=P, prenet_dropout=0.0),
    "simple_ar": Config(encoder="ffn", hidden=H, prenet=P, prenet_dropout=0.0),
    "simple": Config(encoder="ffn", ar=False, hidden=H, prenet=P),
    "layer_norm": Config(hidden=H, prenet=P, prenet_dropout=0.0, layer_norm=True, layers=3),
}
NAMES = {
    "mel_mean_M": "target_mean",
    "mel_scale_M": "target_scale",
    "encoder.input.": "encoder.input_layer.",
    "last.": "proj.",
}


@pytest.fixture(scope="module")
def recipe() -> Iterator[dict[str, Any]]:
    """Return model and loss of s3prl's recipe, whose folder has a name that cannot be imported."""
    found = importlib.util.find_spec("s3prl")
    assert found is not None
    assert found.submodule_search_locations is not None
    package = ModuleType("s3prl_a2o")
    folder = Path(found.submodule_search_locations[0]) / "downstream" / "a2o-vc-vcc2020"
    package.__path__ = [str(folder)]
    sys.modules["s3prl_a2o"] = package
    modules = {name: importlib.import_module(f"s3prl_a2o.{name}") for name in ("model", "expert")}
    yield modules
    for name in [one for one in sys.modules if one.split(".")[0] == "s3prl_a2o"]:
        del sys.modules[name]


def statistics(mels: int) -> SimpleNamespace:
    """Return what scikit-learn's scaler would hold of a target."""
    draw = torch.Generator().manual_seed(5)
    scale = torch.rand(mels, generator=draw, dtype=torch.float64) + 0.5
    mean = torch.randn(mels, generator=draw, dtype=torch.float64) - 4
    return SimpleNamespace(mean_=mean.numpy(), scale_=scale.numpy())


def theirs(recipe: dict[str, Any], config: Config, *, dim: int = D, mels: int = M) -> Any:
    """Return s3prl's model of the same settings."""
    torch.manual_seed(1)
    made = recipe["model"].Model(
        input_dim=dim, output_dim=mels, resample_ratio=1, stats=statistics(mels), ar=config.ar,
        encoder_type=config.encoder, hidden_dim=config.hidden, lstmp_layers=config.layers,
        lstmp_dropout_rate=config.dropout, lstmp_proj_dim=256, lstmp_layernorm=config.layer_norm,
        prenet_layers=2, prenet_dim=config.prenet, prenet_dropout_rate=config.prenet_dropout,
    )  # fmt: skip
    for name, buffer in made.named_buffers():  # batch norms as if they had been trained
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return made


def plain_name(name: str) -> str:
    """Return s3prl's name of one of our weights, but for its recurrent layers."""
    for ours, other in NAMES.items():
        if name.startswith(ours):
            return name.replace(ours, other)
    kind, _, rest = name.partition(".")
    if kind == "prenet":
        number, leaf = rest.split(".")
        return f"prenet.prenet.{number}.0.{leaf}"
    if kind == "layers":
        for mine, other in ((".norm.", ".ln."), (".project.", ".pj.")):
            rest = rest.replace(mine, other)
        return f"lstmps.{rest}"
    if rest.startswith(("convs.", "norms.")):
        what, number, leaf = rest.split(".")
        return f"encoder.convs.{number}.{0 if what == 'convs' else 1}.{leaf}"
    return name


def renamed(name: str, config: Config) -> str:
    """Return s3prl's name, whose recurrent cells are another class where frames feed frames."""
    found = plain_name(name)
    if ".lstm." not in found:
        return found
    return (
        found.replace(".lstm.", ".cell.").removesuffix("_l0")
        if config.ar
        else found.replace(".lstm.", ".layer.")
    )


def ours(model: Any, config: Config, sizes: Sizes = SIZES) -> Taco2AR:
    """Return our converter with the weights of s3prl's model: every one of ours is one of theirs."""
    made = Taco2AR(config, sizes)
    given = model.state_dict()
    made.load_state_dict({name: given[renamed(name, config)] for name in made.state_dict()})
    return made


def batch(lengths: tuple[int, ...] = (30, 30)) -> ConversionBatch:
    draw = torch.Generator().manual_seed(3)
    size = (len(lengths), max(lengths))
    return ConversionBatch(
        x_BTD=torch.randn(*size, D, generator=draw),
        mel_BTM=torch.randn(*size, M, generator=draw) - 4,
        lengths_B=torch.tensor(lengths),
        speakers_B=torch.zeros(len(lengths), dtype=torch.long),
        generator=torch.Generator().manual_seed(0),
    )


def their_loss(recipe: dict[str, Any], model: Any, one: ConversionBatch) -> Tensor:
    found, lengths = model(one.x_BTD, one.lengths_B, one.mel_BTM)
    loss = recipe["expert"].Loss(statistics(M))
    value: Tensor = loss(found, one.mel_BTM, lengths, one.lengths_B, "cpu")
    return value


@pytest.mark.parametrize("name", SMALL)
def test_s3prl_writes_the_same_with_the_same_weights(recipe: dict[str, Any], name: str) -> None:
    model = theirs(recipe, SMALL[name]).eval()
    converter, one = ours(model, SMALL[name]).eval(), batch()
    with torch.no_grad():
        states_BTH = converter.states(one.x_BTD, one.lengths_B)
        for wanted in (one.mel_BTM, None):  # each frame from the true one before, and from its own
            found = converter.write(states_BTH, wanted, one.generator)
            other, _ = model(one.x_BTD, one.lengths_B, wanted)
            torch.testing.assert_close(found, other, atol=1e-5, rtol=1e-5)
    assert float(found.std()) > 0.01


@pytest.mark.parametrize("name", SMALL)
def test_s3prl_has_the_same_loss_and_gradient(
    recipe: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(F, "dropout", lambda x, *_, **__: x)  # whose draws are not ours
    model = theirs(recipe, SMALL[name]).train()
    converter, one = ours(model, SMALL[name]).train(), batch()
    wanted = their_loss(recipe, model, one)
    wanted.backward()
    found = converter.loss(one)
    found.total.backward()
    torch.testing.assert_close(found.total, wanted, atol=1e-6, rtol=1e-5)
    assert found.weight == 60
    given = dict(model.named_parameters())
    for mine, weight in converter.named_parameters():
        torch.testing.assert_close(
            weight.grad, given[renamed(mine, SMALL[name])].grad, atol=1e-6, rtol=1e-4
        )


def test_s3prl_masks_the_same_frames(recipe: dict[str, Any]) -> None:
    model = theirs(recipe, SMALL["simple_ar"]).eval()
    converter, one = ours(model, SMALL["simple_ar"]).eval(), batch((30, 17))
    with torch.no_grad():
        torch.testing.assert_close(converter.loss(one).total, their_loss(recipe, model, one))


def test_the_prenet_drops_at_test_too_and_repeats_itself(
    recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(hidden=H, prenet=P, prenet_dropout=0.5, seed=4)
    model = theirs(recipe, config).eval()
    converter = ours(model, config).eval()
    heard = Heard(x_TD=batch().x_BTD[0], mel_TM=batch().mel_BTM[0])
    first, again = converter.convert(heard, []), converter.convert(heard, [])
    assert torch.equal(first, again)
    draws = torch.Generator().manual_seed(4)

    def dropped(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        return x * (torch.rand(x.shape, generator=draws) < 1 - p) / (1 - p) if training else x

    monkeypatch.setattr(F, "dropout", dropped)
    with torch.no_grad():
        other, _ = model(heard.x_TD[None], torch.tensor([30]))
    torch.testing.assert_close(first, other[0].clamp(min=SIZES.spec.silence), atol=1e-5, rtol=1e-5)
    kept = Config(hidden=H, prenet=P, prenet_dropout=0.0)
    assert not torch.allclose(first, ours(model, kept).eval().convert(heard, []), atol=1e-3)


@pytest.mark.parametrize("name", ["taco2_ar", "simple_ar", "simple"])
def test_published_sizes_have_as_many_weights_as_s3prl_has(
    recipe: dict[str, Any], name: str
) -> None:
    config, sizes = CONFIGS[name], Sizes(dim=768, spec=A2O_MEL, speakers=1)

    def count(model: torch.nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())

    with torch.device("meta"):
        mine = count(Taco2AR(config, sizes))
    model = theirs(recipe, config, dim=768, mels=80)
    unused = 0 if config.ar else count(model.prenet)  # built there, and never called
    assert mine == count(model) - unused


def test_info_prints_that_number(capsys: pytest.CaptureFixture[str]) -> None:
    from mynah.recipes import cli

    families.register()
    assert cli.main(["info", "vc/taco2_ar"]) == 0
    with torch.device("meta"):
        converter = Taco2AR(CONFIGS["taco2_ar"], Sizes(dim=80, spec=A2O_MEL, speakers=1))
    assert f"{sum(p.numel() for p in converter.parameters()):,}" in capsys.readouterr().out


def test_features_come_to_the_spectrograms_frames_as_s3prl_brings_them() -> None:
    upstream = load("hubert/tiny")
    wav_S = torch.randn(48000, generator=torch.Generator().manual_seed(0)) / 10
    heard = Hearing(A2O_MEL, Input(upstream=upstream, layer=-1))([wav_S])[0]
    ratio = A2O_MEL.sample_rate / A2O_MEL.hop * upstream.stride / upstream.sample_rate
    assert ratio == 1.875  # as the recipe prints it
    at_16k = torch.from_numpy(np.asarray(soxr.resample(wav_S.numpy(), 24000, 16000)))
    *_, last_ND = upstream.hidden_states([at_16k])
    other_TD = F.interpolate(last_ND.float().T[None], scale_factor=ratio)[0].T
    shared = min(len(other_TD), len(heard.x_TD))
    assert abs(len(other_TD) - len(heard.mel_TM)) <= 3
    torch.testing.assert_close(heard.x_TD[:shared], other_TD[:shared])


def test_one_frame_after_another_is_all_of_them_at_once() -> None:
    converter = Taco2AR(SMALL["taco2_ar"], SIZES).eval()
    one = batch((20,))
    with torch.no_grad():
        states_BTH = converter.states(one.x_BTD, one.lengths_B)
        free_BTM = converter.write(states_BTH, None, one.generator)
        forced_BTM = converter.write(states_BTH, free_BTM, one.generator)
    torch.testing.assert_close(forced_BTM, free_BTM, atol=1e-6, rtol=1e-5)


def test_nepers_bring_every_kind_of_logarithm_to_one() -> None:
    wav_S = torch.randn(1, 24000, generator=torch.Generator().manual_seed(0)) / 10
    plain = dataclasses.replace(A2O_MEL, log="ln", floor=1e-5)
    wanted_TM = LogMelSpectrogram(plain)(wav_S)[0]
    for log, power in (("ln", 1.0), ("log10", 1.0)):
        spec = dataclasses.replace(A2O_MEL, log=log, power=power)
        found_TM = LogMelSpectrogram(spec)(wav_S)[0] * spec.nepers
        torch.testing.assert_close(found_TM, wanted_TM, atol=1e-4, rtol=1e-4)
    squared = dataclasses.replace(A2O_MEL, power=2.0)
    ratio = LogMelSpectrogram(squared)(wav_S)[0] * squared.nepers - wanted_TM
    assert float(ratio.std()) < 0.3  # a filter's mean of squares is not the square of its mean


def test_statistics_are_the_targets() -> None:
    from sklearn.preprocessing import StandardScaler

    converter = Taco2AR(SMALL["simple"], SIZES)
    mels = list(batch().mel_BTM)
    converter.normalise_by([Heard(x_TD=one, mel_TM=one) for one in mels])
    scaler = StandardScaler().fit(torch.cat(mels).numpy())
    torch.testing.assert_close(
        converter.mel_mean_M, torch.from_numpy(scaler.mean_).float(), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(
        converter.mel_scale_M, torch.from_numpy(scaler.scale_).float(), atol=1e-5, rtol=1e-5
    )
    with pytest.raises(ValueError, match="nothing to measure"):
        converter.normalise_by([])


def test_a_small_model_that_begins_at_the_mean_learns_more_than_the_mean() -> None:
    one = batch()
    off_BTM = (one.x_BTD[..., :M] - one.x_BTD[..., 1 : M + 1]) / 2  # what is said decides it
    one = dataclasses.replace(one, mel_BTM=off_BTM - 6)

    def learnt(config: Config) -> float:
        torch.manual_seed(0)
        converter = Taco2AR(config, SIZES).train()
        converter.normalise_by([Heard(x_TD=m, mel_TM=m) for m in one.mel_BTM])
        optimiser = torch.optim.AdamW(converter.parameters(), lr=3e-3)
        for _ in range(100):
            optimiser.zero_grad()
            converter.loss(one).total.backward()
            optimiser.step()
        with torch.no_grad():
            return float(converter.eval().loss(one).total)

    small = Config(encoder="ffn", hidden=16, prenet=P, prenet_dropout=0.0, dropout=0.0)
    flat = float((one.mel_BTM - one.mel_BTM.mean((0, 1))).div(one.mel_BTM.std((0, 1))).abs().mean())
    found = learnt(small), learnt(dataclasses.replace(small, from_mean=True))
    assert found[0] > 0.9 * flat
    assert found[1] < 0.7 * flat
