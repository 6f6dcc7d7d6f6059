"""Heads and featurizer: the pooled form is the same function, and padding does not matter."""

import pytest
import torch
import torch.nn.functional as F

from mynah.downstream.core.batched import linear_pair
from mynah.downstream.core.featurizer import Featurizer, Probe, weighted_sum
from mynah.downstream.linear_ctc import LinearCTC
from mynah.downstream.linear_mean import LinearMean

L, B, T, D = 4, 3, 300, 6
LENGTHS = torch.tensor([300, 1, 131])


def frames(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    torch.manual_seed(0)
    x_LBTD = torch.randn(L, B, T, D)
    for b, n in enumerate(LENGTHS.tolist()):
        x_LBTD[:, b, n:] = 1e4  # what padding holds must not matter
    return x_LBTD.to(dtype)


def means(x_LBTD: torch.Tensor) -> torch.Tensor:
    rows = [x_LBTD[:, b, :n].mean(1) for b, n in enumerate(LENGTHS.tolist())]
    return torch.stack(rows)


def probe(head: torch.nn.Module, **options: object) -> Probe:
    made = Probe(Featurizer(L, **options), head)  # type: ignore[arg-type]
    if made.featurizer.layer is None:
        torch.nn.init.normal_(made.featurizer.weights)
    return made


def test_pooled_and_frames_are_one_function_with_one_gradient() -> None:
    model = probe(LinearMean(D, 5)).double()
    x_LBTD = frames(torch.float64)
    by_frames = model(x_LBTD, LENGTHS)
    by_means = model(means(x_LBTD))
    torch.testing.assert_close(by_frames, by_means)
    grads = [
        torch.autograd.grad(out.square().sum(), list(model.parameters()), retain_graph=True)
        for out in (by_frames, by_means)
    ]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_one_layer_commutes_too() -> None:
    model = probe(LinearMean(D, 5), layer=-2)
    torch.testing.assert_close(
        model(frames(), LENGTHS), model(means(frames())), rtol=1e-4, atol=1e-4
    )
    assert model.featurizer.layer_weights() == [0, 0, 1, 0]
    assert not list(model.featurizer.parameters())


@pytest.mark.parametrize("normalize", [False, True])
def test_featurizer_is_the_softmax_weighted_sum(normalize: bool) -> None:
    featurizer = Featurizer(L, normalize=normalize)
    torch.nn.init.normal_(featurizer.weights)
    x_LBTD = frames()
    layers = F.layer_norm(x_LBTD, (D,)) if normalize else x_LBTD
    expected = torch.einsum("l,lbtd->btd", featurizer.weights.softmax(0), layers)
    out = featurizer(x_LBTD)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-4)
    probe_of_gradient = torch.randn_like(out)
    torch.testing.assert_close(
        torch.autograd.grad((out * probe_of_gradient).sum(), featurizer.weights),
        torch.autograd.grad((expected * probe_of_gradient).sum(), featurizer.weights),
        rtol=1e-4,
        atol=0.5,
    )


def test_featurizer_gradient_is_exact_in_double() -> None:
    weights_KL = torch.rand(3, L, dtype=torch.float64, requires_grad=True)
    x_LBTD = torch.randn(L, 2, 70, 3, dtype=torch.float64)  # more rows than one chunk
    assert torch.autograd.gradcheck(lambda w: weighted_sum(w, x_LBTD, normalize=True), weights_KL)


def test_it_starts_from_the_mean_and_reads_half_precision() -> None:
    featurizer = Featurizer(L)
    assert featurizer.layer_weights() == [0.25] * L
    x_LBTD = torch.randn(L, B, T, D).half()
    out = featurizer(x_LBTD)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, x_LBTD.float().mean(0))


def test_features_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="made for 4 layers, got 3"):
        Featurizer(L)(torch.zeros(3, B, T, D))
    with pytest.raises(ValueError, match="does not commute"):
        Featurizer(L, normalize=True)(torch.zeros(B, L, D))
    with pytest.raises(ValueError, match="between -4 and 3"):
        Featurizer(L, layer=4)
    with pytest.raises(ValueError, match="expected frames"):
        LinearCTC(D, 7)(torch.zeros(B, D))
    with pytest.raises(ValueError, match="or \\(B, D\\)"):
        LinearMean(D, 7)(torch.zeros(D))


def test_sizes_are_those_of_superb() -> None:
    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    assert count(LinearMean(768, 12)) == 768 * 256 + 256 + 256 * 12 + 12
    assert count(LinearCTC(768, 74)) == 215_882
    assert LinearCTC(D, 7)(torch.zeros(B, T, D)).shape == (B, T, 7)


def test_it_starts_as_s3prl_would() -> None:
    """The same seed gives nn.Linear's weights, projector first, as s3prl's expert builds them."""
    torch.manual_seed(3)
    first, second = torch.nn.Linear(D, 256), torch.nn.Linear(256, 5)
    torch.manual_seed(3)
    ours = LinearMean(D, 5)
    assert torch.equal(ours.projector.weight, first.weight)
    assert torch.equal(ours.projector.bias, first.bias)
    assert torch.equal(ours.classifier.weight, second.weight)


@pytest.mark.parametrize(("rows", "outputs"), [(40, 3), (4, 300)])  # merged, and one by one
@pytest.mark.parametrize("shared", [False, True])
def test_two_linear_layers_at_once(rows: int, outputs: int, shared: bool) -> None:
    heads = [LinearMean(D, outputs).double() for _ in range(3)]
    stacked = {
        name: torch.stack(
            [dict(h.named_parameters())[name].detach() for h in heads]
        ).requires_grad_()
        for name in dict(heads[0].named_parameters())
    }
    x_KNI = torch.randn(1 if shared else 3, rows, D, dtype=torch.float64).expand(3, rows, D)
    out = linear_pair(stacked, x_KNI)
    grads = torch.autograd.grad(out.square().sum(), list(stacked.values()))
    for k, head in enumerate(heads):
        own = head(x_KNI[k])
        torch.testing.assert_close(out[k], own)
        expected = torch.autograd.grad(own.square().sum(), list(head.parameters()))
        by_name = dict(zip(stacked, grads, strict=True))
        for (name, _), grad in zip(head.named_parameters(), expected, strict=True):
            torch.testing.assert_close(by_name[name][k], grad)
