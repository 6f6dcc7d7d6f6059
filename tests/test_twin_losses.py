"""Losses of twin networks, the queue and EMA teachers against explicit loops in float64."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mynah.upstream.core.ema import ema_update, make_teacher
from mynah.upstream.core.twin_losses import (
    Queue,
    barlow_twins,
    embedding_std,
    negative_cosine,
    nt_xent,
    queue_nce,
    retrieval,
    vicreg,
)

B, D, Q = 5, 4, 7
Rows = list[list[float]]


def example(seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(B, D, generator=g)
    return a, a + 0.5 * torch.randn(B, D, generator=g)


def rows(x: Tensor) -> Rows:
    return [[float(v) for v in row] for row in x.double()]


def cosine(x: list[float], y: list[float]) -> float:
    dot = math.fsum(p * q for p, q in zip(x, y, strict=True))
    return dot / math.sqrt(math.fsum(p * p for p in x) * math.fsum(q * q for q in y))


def column(x: Rows, d: int) -> list[float]:
    return [row[d] for row in x]


def nll(logits: list[float], positive: int) -> float:
    top = max(logits)
    return top + math.log(math.fsum(math.exp(v - top) for v in logits)) - logits[positive]


def nt_xent_oracle(a: Tensor, b: Tensor, temperature: float) -> float:
    both = rows(a) + rows(b)
    losses = []
    for i, x in enumerate(both):
        logits = [cosine(x, y) / temperature for j, y in enumerate(both) if j != i]
        other = (i + len(a)) % len(both)
        losses.append(nll(logits, other - (other > i)))
    return math.fsum(losses) / len(losses)


def barlow_oracle(a: Tensor, b: Tensor, weight: float) -> tuple[float, float, float]:
    def standard(values: list[float]) -> list[float]:
        mean = math.fsum(values) / len(values)
        variance = math.fsum((v - mean) ** 2 for v in values) / len(values)
        return [(v - mean) / math.sqrt(variance + 1e-5) for v in values]

    on = off = 0.0
    for i, j in itertools.product(range(a.shape[1]), repeat=2):
        x, y = standard(column(rows(a), i)), standard(column(rows(b), j))
        c = math.fsum(p * q for p, q in zip(x, y, strict=True)) / len(a)
        if i == j:
            on += (c - 1) ** 2
        else:
            off += c**2
    return on + weight * off, on, off


def vicreg_oracle(a: Tensor, b: Tensor) -> tuple[float, float, float]:
    size, width = a.shape
    both = zip(*(itertools.chain(*rows(x)) for x in (a, b)), strict=True)
    apart = math.fsum((x - y) ** 2 for x, y in both) / a.numel()
    short = correlated = 0.0
    for view in (rows(a), rows(b)):
        means = [math.fsum(column(view, d)) / size for d in range(width)]
        for i, j in itertools.product(range(width), repeat=2):
            cov = math.fsum(
                (p - means[i]) * (q - means[j])
                for p, q in zip(column(view, i), column(view, j), strict=True)
            ) / (size - 1)
            if i == j:
                short += max(0.0, 1 - math.sqrt(cov + 1e-4)) / width / 2
            else:
                correlated += cov**2 / width
    return apart, short, correlated


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_nt_xent_equals_the_oracle(temperature: float) -> None:
    a, b = example()
    out = nt_xent(a, b, temperature=temperature)
    assert float(out.loss) == pytest.approx(nt_xent_oracle(a, b, temperature), rel=1e-5)


def test_nt_xent_of_orthogonal_pairs_is_known() -> None:
    eye = torch.eye(B)
    out = nt_xent(eye, 3 * eye, temperature=0.5)
    assert float(out.loss) == pytest.approx(math.log(math.exp(2) + 2 * (B - 1)) - 2, rel=1e-6)
    assert float(out.accuracy) == 1
    collapsed = nt_xent(torch.ones(B, D), torch.ones(B, D), temperature=0.5)
    assert float(collapsed.loss) == pytest.approx(math.log(2 * B - 1), rel=1e-6)
    assert float(collapsed.accuracy) == 0


def test_queue_nce_equals_the_oracle() -> None:
    a, b = example()
    queue = nn.functional.normalize(torch.randn(Q, D), dim=1)
    losses, wins = [], 0
    for q, k in zip(rows(a), rows(b), strict=True):
        logits = [cosine(q, k) / 0.2] + [cosine(q, n) / 0.2 for n in rows(queue)]
        losses.append(nll(logits, 0))
        wins += logits[0] > max(logits[1:])
    out = queue_nce(a, b, queue, temperature=0.2)
    assert float(out.loss) == pytest.approx(math.fsum(losses) / B, rel=1e-5)
    assert float(out.accuracy) == pytest.approx(wins / B)


def test_barlow_twins_equals_the_oracle() -> None:
    a, b = example()
    loss, on, off = barlow_oracle(a, b, 0.05)
    out = barlow_twins(a, b, off_diagonal=0.05)
    assert [float(v) for v in out] == pytest.approx([loss, on, off], rel=1e-5)
    scaled = barlow_twins(a, b, off_diagonal=0.05, scale=0.1)
    assert float(scaled.loss) == pytest.approx(loss / 10, rel=1e-5)


def test_vicreg_equals_the_oracle() -> None:
    a, b = example()
    a, b = 0.8 * a, 1.2 * b
    terms = vicreg_oracle(a, b)
    assert terms[1] > 0
    out = vicreg(a, b, invariance=25, variance=24, covariance=2)
    assert [float(v) for v in out[1:]] == pytest.approx(terms, rel=1e-5)
    total = math.fsum(w * t for w, t in zip((25, 24, 2), terms, strict=True))
    assert float(out.loss) == pytest.approx(total, rel=1e-5)


def test_vicreg_of_collapsed_embeddings_is_its_variance_term() -> None:
    x = torch.full((B, D), 3.0)
    out = vicreg(x, x, invariance=25, variance=25, covariance=1)
    assert float(out.loss) == pytest.approx(25 * (1 - 0.01), rel=1e-5)


def test_negative_cosine_equals_the_oracle_and_stops_the_target() -> None:
    a, b = example()
    a.requires_grad_()
    b.requires_grad_()
    out = negative_cosine(a, b)
    pairs = zip(rows(a.detach()), rows(b.detach()), strict=True)
    expected = -math.fsum(cosine(x, y) for x, y in pairs) / B
    assert float(out.detach()) == pytest.approx(expected, rel=1e-5)
    out.backward()
    assert a.grad is not None
    assert b.grad is None
    unit = [nn.functional.normalize(x.detach(), dim=1) for x in (a, b)]
    squared = (unit[0] - unit[1]).square().sum(dim=1).mean()
    assert float(2 + 2 * out.detach()) == pytest.approx(float(squared), rel=1e-5)


def test_embedding_std_is_one_for_random_directions_and_zero_when_collapsed() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(512, 128, generator=g)
    assert float(embedding_std(x)) == pytest.approx(1, abs=0.01)
    assert float(embedding_std(5 * x)) == pytest.approx(float(embedding_std(x)), rel=1e-5)
    assert float(embedding_std(torch.ones(8, 4))) == pytest.approx(0, abs=1e-6)


def test_retrieval_finds_the_other_view() -> None:
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(0))
    assert float(retrieval(x, 3 * x + 7)) == 1
    assert float(retrieval(x, x.roll(1, dims=0))) == 0
    assert float(retrieval(torch.ones(8, 4), torch.ones(8, 4))) == 0
    swapped = x.clone()
    swapped[:8] = x[:8].roll(1, dims=0)
    assert float(retrieval(x, swapped)) == 0.75


Objective = Callable[[Tensor, Tensor], Tensor]
OBJECTIVES: dict[str, Objective] = {
    "nt_xent": lambda a, b: nt_xent(a, b, temperature=0.3).loss,
    "queue_nce": lambda a, b: queue_nce(a, b, torch.eye(D), temperature=0.3).loss,
    "barlow_twins": lambda a, b: barlow_twins(a, b, off_diagonal=0.1).loss,
    "vicreg": lambda a, b: vicreg(a, b, invariance=2, variance=3, covariance=1).loss,
    "negative_cosine": negative_cosine,
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_is_the_slope_of_the_loss(name: str) -> None:
    a, b = example()
    direction = torch.randn(B, D, generator=torch.Generator().manual_seed(2))
    objective = OBJECTIVES[name]
    x = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(x, b), x)
    step = 1e-2
    slope = (objective(a + step * direction, b) - objective(a - step * direction, b)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-2, abs=2e-4)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_stay_float32_under_autocast(name: str) -> None:
    a, b = example()
    plain = OBJECTIVES[name](a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = OBJECTIVES[name](a, b)
    assert cast.dtype == torch.float32
    assert torch.equal(plain, cast)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_sound_or_unequal_views_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"at least two rows, got \(1, 4\)"):
        OBJECTIVES[name](torch.ones(1, D), torch.ones(1, D))
    with pytest.raises(ValueError, match=r"\(5, 4\) and \(6, 4\)"):
        OBJECTIVES[name](torch.ones(5, D), torch.ones(6, D))


def test_other_bad_arguments_are_refused() -> None:
    a, b = example()
    with pytest.raises(ValueError, match=r"temperature must be above 0, got 0"):
        nt_xent(a, b, temperature=0)
    with pytest.raises(ValueError, match=r"width 4, got \(3, 5\)"):
        queue_nce(a, b, torch.ones(3, 5), temperature=1)
    with pytest.raises(ValueError, match=r"at least two embeddings"):
        embedding_std(a[:1])
    with pytest.raises(ValueError, match=r"rows >= 1"):
        Queue(0, 4)
    with pytest.raises(ValueError, match=r"rows of width 4"):
        Queue(3, 4).push(torch.ones(2, 5))


@pytest.mark.parametrize("sizes", [(3, 3, 3), (2, 5, 1, 4), (9, 2), (20,)])
def test_queue_holds_the_newest_rows(sizes: tuple[int, ...]) -> None:
    queue = Queue(Q, 1)
    stream = torch.arange(float(sum(sizes)))[:, None]
    for part in stream.split(list(sizes)):
        queue.push(part)
    newest = stream[-Q:, 0].tolist()
    assert sorted(queue.rows_QD[:, 0].tolist()) == newest
    assert int(queue.filled) == min(Q, len(stream))
    again = Queue(Q, 1)
    again.load_state_dict(queue.state_dict())
    for one in (queue, again):
        one.push(torch.tensor([[-1.0]]))
    assert torch.equal(queue.rows_QD, again.rows_QD)
    assert newest[0] not in queue.rows_QD[:, 0].tolist()


def test_queue_starts_with_unit_vectors_and_can_change_before_the_gradient_is_taken() -> None:
    a, b = example()
    queue = Queue(Q, D)
    assert queue.rows_QD.norm(dim=1).tolist() == pytest.approx([1] * Q)
    a.requires_grad_()
    loss = queue_nce(a, b, queue.rows_QD, temperature=0.1).loss
    queue.push(b)
    loss.backward()
    assert a.grad is not None


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.norm = nn.BatchNorm1d(2)


def test_ema_moves_parameters_and_copies_or_keeps_statistics() -> None:
    student = Small()
    teacher = make_teacher(student)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    before = {name: value.clone() for name, value in teacher.named_parameters()}
    with torch.no_grad():
        for value in student.parameters():
            value.add_(torch.randn_like(value))
    student.norm(torch.randn(8, 2))
    ema_update(teacher, student, 0.9, buffers="keep")
    for name, value in teacher.named_parameters():
        theirs = dict(student.named_parameters())[name].double()
        assert torch.allclose(value.double(), 0.9 * before[name].double() + 0.1 * theirs, atol=1e-6)
    assert torch.equal(teacher.norm.running_mean, torch.zeros(2))
    ema_update(teacher, student, 1.0)
    assert torch.equal(teacher.norm.running_mean, student.norm.running_mean)
    assert int(teacher.norm.num_batches_tracked) == 1
    ema_update(teacher, student.to(torch.bfloat16), 0.0)
    assert torch.equal(teacher.linear.weight, student.linear.weight.float())


def test_ema_refuses_what_is_not_a_copy() -> None:
    teacher = make_teacher(Small())
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1.5"):
        ema_update(teacher, Small(), 1.5)
    with pytest.raises(ValueError, match=r"'copy' or 'keep', got 'mean'"):
        ema_update(teacher, Small(), 0.5, buffers="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"differ in 2 tensors \(bias, weight\)"):
        ema_update(teacher.norm, nn.Identity(), 0.5)
    with pytest.raises(ValueError, match=r"is torch.bfloat16"):
        ema_update(teacher.to(torch.bfloat16), Small(), 0.5)
