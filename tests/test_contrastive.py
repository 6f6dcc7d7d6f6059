"""Negatives and contrastive loss against Hugging Face's and a float64 oracle."""

import math

import pytest
import torch

from mynah.upstream.core.contrastive import contrastive_loss, diversity_loss, sample_negatives

COUNTS = (9, 1, 0, 14, 3)
M, D, K = sum(COUNTS), 16, 7


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def example(codes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    g = generator(4)
    pred = torch.randn(M, D, generator=g)
    target = torch.randn(M, D, generator=g)
    code = torch.randint(codes, (M, 2), generator=g)
    # equal codes have equal vectors, as a quantiser makes them
    table = torch.randn(codes, codes, D, generator=g)
    target = table[code[:, 0], code[:, 1]]
    negatives = sample_negatives(torch.tensor(COUNTS), K, generator=g)
    return pred, target, code, negatives


def oracle(
    pred: torch.Tensor, target: torch.Tensor, code: torch.Tensor, negatives: torch.Tensor
) -> tuple[float, float]:
    """Equation 3 of the paper, one frame and one negative at a time, in float64."""

    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        x, y = a.double().tolist(), b.double().tolist()
        dot = math.fsum(p * q for p, q in zip(x, y, strict=True))
        return dot / math.sqrt(math.fsum(p * p for p in x) * math.fsum(q * q for q in y))

    losses, wins, decided = [], 0, 0
    for t in range(len(pred)):
        positive = cosine(pred[t], target[t]) / 0.1
        others = [
            cosine(pred[t], target[j]) / 0.1
            for j in negatives[t].tolist()
            if code[j].tolist() != code[t].tolist()
        ]
        losses.append(math.log(math.fsum(math.exp(v - positive) for v in [positive, *others])))
        decided += bool(others)
        wins += bool(others) and positive > max(others)
    return math.fsum(losses) / len(losses), wins / decided


@pytest.mark.parametrize("codes", [2, 50])
def test_loss_and_accuracy_equal_the_oracle(codes: int) -> None:
    pred, target, code, negatives = example(codes)
    out = contrastive_loss(
        pred, target, negatives_MK=negatives, codes_MG=code, counts_B=torch.tensor(COUNTS)
    )
    loss, accuracy = oracle(pred, target, code, negatives)
    assert out.loss.item() == pytest.approx(loss, rel=1e-5)
    assert out.accuracy.item() == pytest.approx(accuracy)


def test_colliding_codes_change_the_loss() -> None:
    pred, target, code, negatives = example(2)
    counts = torch.tensor(COUNTS)
    distinct = torch.arange(2 * M).reshape(M, 2)
    with_rule = contrastive_loss(
        pred, target, negatives_MK=negatives, codes_MG=code, counts_B=counts
    )
    without = contrastive_loss(
        pred, target, negatives_MK=negatives, codes_MG=distinct, counts_B=counts
    )
    assert without.loss > with_rule.loss + 0.1


@pytest.mark.parametrize("codes", [2, 50])
def test_loss_equals_hugging_face(codes: int) -> None:
    pytest.importorskip("transformers")
    from transformers import Wav2Vec2ForPreTraining

    pred, target, code, negatives = example(codes)
    out = contrastive_loss(
        pred, target, negatives_MK=negatives, codes_MG=code, counts_B=torch.tensor(COUNTS)
    )
    negative_vectors = target[negatives].transpose(0, 1)[:, None]  # (K, 1, M, D)
    logits = Wav2Vec2ForPreTraining.compute_contrastive_logits(
        target[None, None], negative_vectors, pred[None], 0.1
    )
    same = (target[None, None] == negative_vectors).all(-1)
    logits[1:][same] = float("-inf")
    flat = logits.permute(1, 2, 0).reshape(M, K + 1)
    loss = torch.nn.functional.cross_entropy(flat, torch.zeros(M, dtype=torch.int64))
    torch.testing.assert_close(out.loss, loss)


def test_gradient_is_finite_when_every_negative_collides() -> None:
    pred, target, _, negatives = example(2)
    pred.requires_grad_()
    out = contrastive_loss(
        pred,
        target,
        negatives_MK=negatives,
        codes_MG=torch.zeros(M, 2, dtype=torch.int64),
        counts_B=torch.tensor(COUNTS),
    )
    out.loss.backward()
    assert out.loss.item() == 0.0
    assert out.accuracy.item() == 0.0
    assert pred.grad is not None
    assert pred.grad.isfinite().all()


def test_bf16_autocast_does_not_coarsen_the_cosines() -> None:
    pred, target, code, negatives = example(50)
    counts = torch.tensor(COUNTS)

    def value() -> torch.Tensor:
        return contrastive_loss(
            pred, target, negatives_MK=negatives, codes_MG=code, counts_B=counts
        ).loss

    plain = value()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(value(), plain)


def test_negatives_are_other_masked_frames_of_the_same_utterance() -> None:
    negatives = sample_negatives(torch.tensor(COUNTS), 500, generator=generator())
    assert negatives.shape == (M, 500)
    first = 0
    for count in COUNTS:
        for position in range(first, first + count):
            others = set(range(first, first + count)) - {position}
            assert set(negatives[position].tolist()) == (others or {position})
        first += count


def test_negatives_are_uniform() -> None:
    negatives = sample_negatives(torch.tensor([3, 6]), 12_000, generator=generator())
    share = torch.bincount(negatives[4], minlength=9) / 12_000
    expected = torch.tensor([0, 0, 0, 0.2, 0, 0.2, 0.2, 0.2, 0.2])
    torch.testing.assert_close(share, expected, atol=0.015, rtol=0.0)


def test_negatives_are_deterministic_under_the_generator() -> None:
    counts = torch.tensor(COUNTS)
    a = sample_negatives(counts, K, generator=generator(1))
    assert torch.equal(a, sample_negatives(counts, K, generator=generator(1)))
    assert not torch.equal(a, sample_negatives(counts, K, generator=generator(2)))


def test_diversity_by_hand() -> None:
    assert diversity_loss(torch.full((2, 5), 0.2)).item() == pytest.approx(0.0, abs=1e-6)
    collapsed = torch.eye(5)[:2]
    assert diversity_loss(collapsed).item() == pytest.approx((10 - 2) / 10)
    half = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    assert diversity_loss(half).item() == pytest.approx((4 - 2) / 4)


def test_bad_calls() -> None:
    pred, target, code, negatives = example(2)
    with pytest.raises(ValueError, match="do not belong together"):
        contrastive_loss(
            pred, target, negatives_MK=negatives, codes_MG=code, counts_B=torch.tensor([M - 1])
        )
    with pytest.raises(ValueError, match="no masked frame"):
        contrastive_loss(
            pred[:0],
            target[:0],
            negatives_MK=negatives[:0],
            codes_MG=code[:0],
            counts_B=torch.tensor([0]),
        )
    with pytest.raises(ValueError, match="at least 1"):
        sample_negatives(torch.tensor([3]), 0, generator=generator())
    with pytest.raises(ValueError, match="count >= 0"):
        sample_negatives(torch.tensor([3, -1]), 2, generator=generator())
