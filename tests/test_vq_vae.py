"""VQ-VAE: its encoder against plain convolutions, its objective, its units, learning."""

import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from padded import batch, waves

from mynah.upstream.core.codebooks import BinaryCode, GumbelOneHot, VectorQuantizer
from mynah.upstream.core.contract import Batch
from mynah.upstream.core.unit_encoder import ConvEncoder, PackedConvEncoder
from mynah.upstream.vq_vae import CONFIGS, Config, VqVae, jittered

SIZES: dict[str, Any] = {
    "num_mels": 12, "channels": 16, "code_dim": 6, "codes": 9, "bits": 4, "decay": 0.9,
    "patience": 5, "utterance_dim": 4, "decoder_dim": 10,
}  # fmt: skip
MICRO = Config(**SIZES)
KINDS = ("vq", "gumbel", "binary")


def make(config: Config, seed: int = 0) -> VqVae:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VqVae(config)
        with torch.no_grad():  # as trained: statistics that are not 0 and 1, codes that differ
            for block in model.encoder.blocks():
                block.norm.running_mean.normal_(std=0.2)
                block.norm.running_var.uniform_(0.5, 1.5)
                block.norm.weight.uniform_(0.5, 1.5)
                block.norm.bias.normal_(std=0.2)
            if isinstance(model.bottleneck, VectorQuantizer):
                model.narrow.weight.normal_(std=0.5)
                model.bottleneck.codebook_VD.normal_()
    return model


def plain(encoder: ConvEncoder) -> nn.Sequential:
    """Return the encoder as the published one is written, with the same weights."""
    layers: list[nn.Module] = []
    for block in encoder.blocks():
        layers += [block.conv, block.norm, nn.ReLU()]
    return nn.Sequential(*layers)


def outputs(model: VqVae, wav: Tensor) -> list[Tensor]:
    """Return the hidden states of one utterance by their definition; the model is in eval mode."""
    x_CT = model.features([wav])[0].T[None]
    net, found = plain(model.encoder), []
    for index, layer in enumerate(net):
        x_CT = layer(x_CT)
        if isinstance(layer, nn.ReLU) and index > 6:
            found.append(x_CT[0].T)
    z_TZ = model.narrow(found[-1])
    return [*found, model.expand(z_TZ), model.expand(model.bottleneck(z_TZ).vectors_MD)]


# -- features ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_states_follow_the_definition(kind: str) -> None:
    model = make(Config(**{**SIZES, "bottleneck": kind})).eval()
    wavs = waves(batch(300, 9000, 16000))
    with torch.no_grad():
        expected = [outputs(model, wav) for wav in wavs]
    states = list(model.freeze().hidden_states(wavs))
    assert len(states) == model.num_layers == 5
    counts = [model.num_frames(len(wav)) for wav in wavs]
    for layer, state_NC in enumerate(states):
        for part, want in zip(state_NC.split(counts), expected, strict=True):
            assert part.shape == want[layer].shape
            assert (part - want[layer]).norm() / want[layer].norm() < 1e-5


def test_frames_are_pairs_of_filterbank_frames() -> None:
    model = make(MICRO)
    assert model.stride == 320
    assert [model.num_frames(n) for n in (1, 400, 560, 720, 880, 16000)] == [1, 1, 1, 2, 2, 49]
    x_NM, counts = model.features([torch.rand(720), torch.rand(560)])
    assert counts == [4, 2]
    assert not x_NM[3].any()  # the mean, where a frame is missing


def test_units_are_the_codes_of_the_last_state_whatever_the_neighbours() -> None:
    model = make(MICRO).freeze()
    wavs = waves(batch(9000, 300, 16000))
    together = model.units(wavs)
    assert [len(codes) for codes in together] == [model.num_frames(len(wav)) for wav in wavs]
    assert len(torch.cat(together).unique()) > 1
    (*_, last_NC) = model.hidden_states(wavs)
    book = model.expand(model.bottleneck.codebook_VD)  # type: ignore[operator]
    assert (last_NC - book[torch.cat(together)]).abs().max() < 1e-5
    for wav, codes in zip(wavs, together, strict=True):
        assert torch.equal(model.units([wav])[0], codes)


def test_states_do_not_depend_on_the_mode_and_change_nothing() -> None:
    model = make(MICRO).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wavs = waves(batch(9000))
    training = list(model.hidden_states(wavs))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    for got, want in zip(training, model.freeze().hidden_states(wavs), strict=True):
        assert torch.equal(got, want)


# -- encoder -------------------------------------------------------------------------------------


def test_training_statistics_are_those_of_true_frames() -> None:
    model = make(MICRO).train()
    wavs = waves(batch(16000, 3200, 9600))
    parts = [model.features([wav])[0] for wav in wavs]
    counts = [len(part) for part in parts]
    padded_BTM = nn.utils.rnn.pad_sequence(parts, batch_first=True)
    got_NC, frames = model.encoder(padded_BTM, counts)
    assert frames == [count // 2 for count in counts]
    xs = [part.T[None] for part in parts]
    for block in model.encoder.blocks():
        ys = [block.conv(x_CT)[0].T for x_CT in xs]
        y_NC = torch.cat(ys)
        mean_C, variance_C = y_NC.mean(0), y_NC.var(0, correction=0)
        y_NC = (y_NC - mean_C) / (variance_C + 1e-5).sqrt() * block.norm.weight + block.norm.bias
        xs = [part.T[None] for part in F.relu(y_NC).split([len(y) for y in ys])]
    want_NC = torch.cat([x_CT[0].T for x_CT in xs])
    assert (got_NC - want_NC).norm() / want_NC.norm() < 1e-5


def test_norms_are_folded_into_the_convolutions() -> None:
    model = make(MICRO).eval()
    packed = PackedConvEncoder(model.encoder)
    x_TM = torch.randn(31 * 2, 12, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        want = plain(model.encoder)(x_TM.T[None])[0].T
        for index in range(5):
            x_TM = packed(x_TM, index)
    assert (x_TM - want).norm() / want.norm() < 1e-6


# -- objective -----------------------------------------------------------------------------------


def decoded(model: VqVae, vectors_TZ: Tensor, last_TC: Tensor) -> Tensor:
    """Return the log-mel frames of one utterance, without padding."""
    about_TU = model.utterance(last_TC.mean(0)).expand(len(vectors_TZ), -1)
    x_TX = torch.cat([model.expand(vectors_TZ), about_TU], dim=1)
    doubled = torch.stack([x_TX, x_TX], dim=1).flatten(0, 1)
    restored: Tensor = model.predict(model.decoder(doubled[None])[0][0])
    return restored


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_the_error_of_true_frames_and_the_bottleneck_s_terms(kind: str) -> None:
    model = make(Config(**{**SIZES, "bottleneck": kind})).eval()
    given = batch(6400, 16000, 3360)
    loss = model.loss(given)
    errors, wanted, lasts = [], [], []
    for wav in waves(given):
        x_TM = model.features([wav])[0]
        last_TC = plain(model.encoder)(x_TM.T[None])[0].T
        vectors_TZ = model.bottleneck(model.narrow(last_TC)).vectors_MD
        true = model.front.num_frames(len(wav))
        errors.append((decoded(model, vectors_TZ, last_TC) - x_TM)[:true].abs())
        wanted.append(x_TM[:true].abs())
        lasts.append(last_TC)
    coded = model.bottleneck(model.narrow(torch.cat(lasts)))
    error = torch.cat(errors).mean().item()
    terms = {name: term.item() for name, term in coded.losses.items()}
    assert len(terms) == 1
    assert loss.parts["l1"].item() == pytest.approx(error, rel=1e-5)
    assert loss.total.item() == pytest.approx(error + sum(terms.values()), rel=1e-5)
    for name, term in terms.items():
        assert loss.parts[name].item() == pytest.approx(term, rel=1e-4)
    assert loss.parts["mean"].item() == pytest.approx(torch.cat(wanted).mean().item(), rel=1e-5)
    assert loss.parts["code_perplexity"].item() == pytest.approx(coded.code_perplexity.item())
    assert loss.weight == sum(map(len, lasts))
    assert set(model.floors) <= set(loss.parts)


def test_jitter_takes_neighbours_of_the_same_utterance() -> None:
    counts, generator = [1, 50, 2, 400], torch.Generator().manual_seed(0)
    drawn = torch.stack([jittered(counts, prob=0.5, generator=generator) for _ in range(200)])
    assert (drawn[:, 0] == 0).all()
    step = drawn - torch.arange(453)
    assert set(step.unique().tolist()) == {-1, 0, 1}
    assert (step[:, 1] >= 0).all()
    assert (step[:, 50] <= 0).all()
    inner = step[:, 54:452]
    assert (inner == 1).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert (inner == -1).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(jittered([9], prob=0.0, generator=generator), torch.arange(9))


@pytest.mark.parametrize("kind", KINDS)
def test_randomness_comes_from_the_batch_generator(kind: str) -> None:
    def total(seed: int, other: int) -> float:
        model = make(Config(**{**SIZES, "bottleneck": kind}))
        torch.manual_seed(other)
        return model.loss(batch(16000, 9000, seed=seed)).total.item()

    assert total(3, 1) == total(3, 2) != total(4, 1)


def test_the_codebook_moves_after_the_step_only() -> None:
    model = make(MICRO)
    assert isinstance(model.bottleneck, VectorQuantizer)
    before = model.bottleneck.codebook_VD.clone()
    model.loss(batch(16000)).total.backward()
    assert torch.equal(model.bottleneck.codebook_VD, before)
    model.after_step(1, 10)
    assert not torch.equal(model.bottleneck.codebook_VD, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_beat_the_mean_spectrum_with_several_codes(kind: str) -> None:
    settings = {**SIZES, "channels": 32, "codes": 16, "decoder_layers": 1, "bottleneck": kind}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VqVae(Config(**settings))
    time = torch.arange(4000) / 16000
    wav_BS = torch.stack(
        [
            torch.sin(2 * torch.pi * (f + 300 * torch.sin(32 * time)) * time)
            for f in range(300, 2300, 250)
        ]
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(60):
        given = Batch(
            wav_BS=wav_BS,
            lengths_B=torch.tensor([4000] * 8),
            ids=tuple("abcdefgh"),
            generator=torch.Generator().manual_seed(step),
        )
        optimiser.zero_grad()
        loss = model.loss(given)
        loss.total.backward()
        optimiser.step()
        model.after_step(step + 1, 60)
    assert loss.parts["l1"] < 0.8 * loss.parts["mean"]
    assert loss.parts["code_perplexity"] > model.floors["code_perplexity"]


def test_bottlenecks_are_chosen_by_name() -> None:
    kinds = {"tiny": VectorQuantizer, "tiny-gumbel": GumbelOneHot, "tiny-binary": BinaryCode}
    for variant, kind in kinds.items():
        assert isinstance(VqVae(CONFIGS[variant]).bottleneck, kind)
    with pytest.raises(ValueError, match="'vq', 'gumbel' or 'binary', got 'kmeans'"):
        VqVae(Config(**{**SIZES, "bottleneck": "kmeans"}))


def test_base_has_the_published_encoder() -> None:
    with torch.device("meta"):
        model = VqVae(CONFIGS["base"])
    convolutions = 80 * 768 * 3 + 768 * 768 * (3 + 4 + 3 + 3)
    norms = 5 * 2 * 768
    assert sum(p.numel() for p in model.encoder.parameters()) == convolutions + norms
    assert isinstance(model.bottleneck, VectorQuantizer)
    assert model.bottleneck.codebook_VD.shape == (512, 64)
    assert math.isclose(model.bottleneck.decay, 0.999)
    assert (model.dim, model.stride, model.num_layers) == (768, 320, 5)
