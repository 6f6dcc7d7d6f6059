"""Voice converters: closed forms against oracles, losses against formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mynah.downstream import conversion
from mynah.downstream.conversion.adversarial import Adversarial, confusion
from mynah.downstream.conversion.adversarial import Config as AdversarialConfig
from mynah.downstream.conversion.core.blocks import instance_norm, mask_of
from mynah.downstream.conversion.core.bottleneck import Gumbel, Variational, VectorQuantiser
from mynah.downstream.conversion.core.contract import ConversionBatch, Heard, Sizes
from mynah.downstream.conversion.core.statistics import Gaussian
from mynah.downstream.conversion.knn import KNN
from mynah.downstream.conversion.knn import Config as KNNConfig
from mynah.downstream.conversion.mkl import MKL, transport
from mynah.downstream.conversion.mkl import Config as MKLConfig
from mynah.downstream.conversion.stats import Config as StatsConfig
from mynah.downstream.conversion.stats import Stats
from mynah.downstream.core.melspec import MelSpec

SPEC = MelSpec(num_mels=12)
SIZES = Sizes(dim=12, spec=SPEC, speakers=3)
TRAINED = sorted(n for n in conversion.available() if conversion.get(n).CONVERTER.trained)


def heard(seed: int, frames: int = 90, shift: float = 0.0) -> Heard:
    """Return correlated frames that are all speech."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed + 100)) * 0.3
    mel = torch.randn(frames, 12, generator=draw) @ mix - 4 + shift
    return Heard(x_TD=mel, mel_TM=mel)


# -- closed forms ---------------------------------------------------------------------------------


def test_transport_carries_one_covariance_to_the_other() -> None:
    source, target = (Gaussian.of(heard(seed, 500).mel_TM, shrink=0.0) for seed in (1, 2))
    a = transport(source, target)
    torch.testing.assert_close(a @ source.covariance_DD @ a.T, target.covariance_DD)
    torch.testing.assert_close(a, a.T)  # the optimal map is symmetric


def test_mkl_of_a_diagonal_is_stats() -> None:
    source, target = heard(1), heard(2, shift=1.0)
    mkl = MKL(MKLConfig(shrink=1.0), SIZES).convert(source, [target])
    stats = Stats(StatsConfig(), SIZES).convert(source, [target])
    torch.testing.assert_close(mkl, stats, atol=1e-4, rtol=1e-4)


def test_stats_gives_the_target_its_own_mean_and_deviation() -> None:
    out = Stats(StatsConfig(), SIZES).convert(heard(1), [heard(2, shift=1.0)])
    wanted = heard(2, shift=1.0).mel_TM
    torch.testing.assert_close(out.mean(0), wanted.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        out.std(0, unbiased=False), wanted.std(0, unbiased=False), atol=1e-3, rtol=1e-3
    )


def test_knn_finds_what_scikit_learn_finds() -> None:
    from sklearn.neighbors import NearestNeighbors

    converter = KNN(KNNConfig(neighbours=3, normalise=False), SIZES)
    source, target = heard(1), heard(2)
    pool = converter.encode_speaker([target])
    found = converter.neighbours(converter.encode_content(source), pool)
    brute = NearestNeighbors(n_neighbors=3, metric="cosine").fit(pool.keys_ND.numpy())
    wanted = brute.kneighbors(source.x_TD.numpy(), return_distance=False)
    assert np.array_equal(found.numpy(), wanted)
    mel = converter.convert(source, [target])
    torch.testing.assert_close(mel, pool.mel_NM[torch.from_numpy(wanted)].mean(1))


# -- parts of the auto-encoders -------------------------------------------------------------------


def test_instance_norm_does_not_see_padding() -> None:
    x = torch.randn(2, 5, 20)
    lengths = torch.tensor([20, 11])
    found = instance_norm(x, mask_of(lengths, 20))
    wanted = F.instance_norm(x[1:, :, :11])
    torch.testing.assert_close(found[1:, :, :11], wanted)
    assert not found[1, :, 11:].any()


def test_the_divergence_is_the_closed_form() -> None:
    bottleneck = Variational(6, 4, weight=1.0).eval()
    bottleneck.after_step(1.0)
    h, mask = torch.randn(1, 6, 9), torch.ones(1, 1, 9)
    mean, logs = bottleneck.mean(h), bottleneck.log_variance(h)
    normal = torch.distributions.Normal(mean, (0.5 * logs).exp())
    wanted = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(bottleneck(h, mask).terms["kl"], wanted.sum(1).mean())


def test_the_codebook_takes_the_nearest_and_follows_by_moving_averages() -> None:
    bottleneck = VectorQuantiser(3, 3, codes=4, decay=0.5)
    torch.nn.init.eye_(bottleneck.into.weight[..., 0])
    torch.nn.init.zeros_(bottleneck.into.bias)
    h = torch.randn(1, 3, 50)
    bottleneck(h, torch.ones(1, 1, 50))
    bottleneck.after_step(0.1)  # the first batch gives the vectors
    before, counts = bottleneck.codebook_VC.clone(), bottleneck.counts_V.clone()
    passed = bottleneck(h, torch.ones(1, 1, 50))
    nearest = torch.cdist(h[0].T, before).argmin(1)
    torch.testing.assert_close(passed.code_BCT[0].T, before[nearest])
    bottleneck.after_step(0.2)
    usage = torch.bincount(nearest, minlength=4).float()
    sums = torch.zeros(4, 3).index_add_(0, nearest, h[0].T)
    wanted = (0.5 * before * counts[:, None] + 0.5 * sums) / (0.5 * counts + 0.5 * usage)[:, None]
    torch.testing.assert_close(bottleneck.codebook_VC, wanted)


def test_a_code_that_nobody_chooses_starts_again_at_a_frame() -> None:
    bottleneck = VectorQuantiser(3, 3, codes=4, decay=0.0)
    h = torch.randn(1, 3, 50)
    for share in (0.1, 0.2):
        bottleneck(h, torch.ones(1, 1, 50))
        bottleneck.after_step(share)
        bottleneck.codebook_VC[3] = 1e3  # where no frame is
    bottleneck(h, torch.ones(1, 1, 50))
    bottleneck.after_step(0.3)
    frames = bottleneck.into(h)[0].T.detach()
    assert float((frames - bottleneck.codebook_VC[3]).square().sum(1).min()) < 1e-8


def test_gumbel_draws_while_training_and_chooses_the_likeliest_after() -> None:
    bottleneck = Gumbel(3, 3, codes=8)
    h, mask = torch.randn(1, 3, 30), torch.ones(1, 1, 30)
    assert not torch.equal(bottleneck(h, mask).code_BCT, bottleneck(h, mask).code_BCT)
    bottleneck.eval()
    wanted = bottleneck.vectors.weight.T[bottleneck.logits(h).argmax(1)[0]]
    torch.testing.assert_close(bottleneck(h, mask).code_BCT[0].T, wanted)
    bottleneck.after_step(1.0)
    assert float(bottleneck.temperature) == pytest.approx(0.5)


def test_confusion_is_the_divergence_of_the_answer_from_a_guess() -> None:
    logits = torch.randn(5, 7, dtype=torch.float64)
    uniform = torch.full((5, 7), 1 / 7, dtype=torch.float64)
    wanted = F.kl_div(logits.log_softmax(1), uniform, reduction="batchmean")
    torch.testing.assert_close(confusion(logits), wanted)
    assert float(confusion(torch.zeros(2, 4))) == pytest.approx(0.0, abs=1e-6)


def batch() -> ConversionBatch:
    """Return two padded utterances."""
    x = torch.randn(2, 40, 12, generator=torch.Generator().manual_seed(3)) - 4
    return ConversionBatch(
        x_BTD=x,
        mel_BTM=x,
        lengths_B=torch.tensor([40, 25]),
        speakers_B=torch.tensor([0, 2]),
        generator=torch.Generator().manual_seed(0),
    )


def test_adversary_and_autoencoder_learn_in_turn() -> None:
    model = Adversarial(AdversarialConfig(hidden=8, code=4, voice=4, turns=1), SIZES)

    def touched() -> set[bool]:
        model.zero_grad(set_to_none=True)
        model.loss(batch()).total.backward()
        return {
            n.startswith("classifier") for n, p in model.named_parameters() if p.grad is not None
        }

    assert model.classifying
    assert touched() == {True}
    model.after_step(1, 10)
    assert touched() == {False}
    model.after_step(2, 10)
    assert touched() == {True}


@pytest.mark.parametrize("method", TRAINED)
def test_padding_changes_no_loss_and_no_code(method: str) -> None:
    module = conversion.get(method)
    small = {"hidden": 8}
    if method != "taco2_ar":
        small |= {"code": 4, "voice": 4}
    model = module.CONVERTER(module.Config(**small), SIZES).eval()
    if method == "adversarial":
        model.turn.fill_(model.config.turns)
    one = batch()
    dirty = one.x_BTD.clone()
    dirty[1, 25:] = 99.0
    other = ConversionBatch(
        x_BTD=dirty,
        mel_BTM=dirty,
        lengths_B=one.lengths_B,
        speakers_B=one.speakers_B,
        generator=torch.Generator().manual_seed(0),
    )
    with torch.no_grad():
        torch.testing.assert_close(model.loss(one).total, model.loss(other).total)
        alone = model.encode_content(Heard(x_TD=dirty[1, :25], mel_TM=dirty[1, :25]))
    assert alone.shape == (25, model.code_dim)
    mel = model.convert(Heard(x_TD=dirty[0], mel_TM=dirty[0]), [heard(2)])
    assert mel.shape == (40, 12)
    assert bool(torch.isfinite(mel).all())
