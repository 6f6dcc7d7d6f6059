"""The Gumbel quantiser against Hugging Face's and against its definition."""

import math
from typing import Any

import pytest
import torch

from mynah.upstream.core.gumbel import GumbelQuantizer, gumbel_noise, perplexity

FRAMES, WIDTH, GROUPS, CODES, DIM = 37, 12, 2, 6, 8


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quantizer(seed: int = 0) -> GumbelQuantizer:
    torch.manual_seed(seed)
    return GumbelQuantizer(WIDTH, dim=DIM, groups=GROUPS, codes=CODES)


def frames(seed: int = 7) -> torch.Tensor:
    return torch.randn(FRAMES, WIDTH, generator=generator(seed))


def hugging_face(ours: GumbelQuantizer) -> Any:
    pytest.importorskip("transformers")
    from transformers import Wav2Vec2Config
    from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer

    config = Wav2Vec2Config(
        num_codevector_groups=GROUPS,
        num_codevectors_per_group=CODES,
        codevector_dim=DIM,
        conv_dim=(WIDTH,),
        conv_stride=(1,),
        conv_kernel=(1,),
        num_feat_extract_layers=1,
    )
    theirs = Wav2Vec2GumbelVectorQuantizer(config)
    theirs.load_state_dict(
        {
            "codevectors": ours.vectors_GVC.detach().reshape(1, GROUPS * CODES, -1),
            "weight_proj.weight": ours.logits.weight.detach(),
            "weight_proj.bias": ours.logits.bias.detach(),
        }
    )
    return theirs


def test_eval_equals_hugging_face() -> None:
    ours = quantizer().eval()
    theirs = hugging_face(ours).eval()
    out = ours(frames())
    vectors, code_perplexity = theirs(frames()[None])
    torch.testing.assert_close(out.vectors_MD, vectors[0])
    torch.testing.assert_close(out.code_perplexity, code_perplexity)


def test_training_perplexity_over_masked_frames_equals_hugging_face() -> None:
    ours = quantizer().train()
    theirs = hugging_face(ours).train()
    mask = torch.rand(1, FRAMES, generator=generator(3)) < 0.5
    _, soft_perplexity = theirs(frames()[None], mask_time_indices=mask)
    out = ours(frames()[mask[0]], generator=generator())
    torch.testing.assert_close(out.perplexity, soft_perplexity)


def test_training_noise_and_gradients_equal_torch_gumbel_softmax(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours = quantizer().train()
    ours.set_temperature(0.7)
    x = frames().requires_grad_()
    out = ours(x, generator=generator(11))
    weights = torch.randn(FRAMES, DIM, generator=generator(12))
    (out.vectors_MD * weights).sum().backward()
    ours_grads = [x.grad, ours.logits.weight.grad, ours.vectors_GVC.grad]

    noise = gumbel_noise((FRAMES, GROUPS, CODES), generator=generator(11))
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_((-noise).exp()))
    y = frames().requires_grad_()
    ours.zero_grad()
    logits = ours.logits(y).unflatten(1, (GROUPS, CODES))
    hard = torch.nn.functional.gumbel_softmax(logits, tau=0.7, hard=True)
    vectors = (hard[..., None] * ours.vectors_GVC).sum(dim=2).flatten(1)
    (vectors * weights).sum().backward()
    torch.testing.assert_close(out.vectors_MD, vectors)
    for mine, reference in zip(
        ours_grads, [y.grad, ours.logits.weight.grad, ours.vectors_GVC.grad], strict=True
    ):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-6)


def test_chosen_codes_are_the_vectors() -> None:
    model = quantizer().train()
    out = model(frames(), generator=generator())
    expected = torch.stack(
        [model.vectors_GVC[g, out.codes_MG[:, g]] for g in range(GROUPS)], dim=1
    ).flatten(1)
    torch.testing.assert_close(out.vectors_MD, expected)
    histogram = torch.stack([torch.bincount(c, minlength=CODES) for c in out.codes_MG.T]) / FRAMES
    torch.testing.assert_close(out.code_perplexity, perplexity(histogram))


def test_noise_is_gumbel() -> None:
    noise = gumbel_noise((200_000,), generator=generator())
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, rel=0.02)


def test_choices_follow_the_softmax_of_the_logits() -> None:
    model = quantizer().train()
    x = frames()[:1].expand(20_000, -1)
    out = model(x, generator=generator())
    share = torch.stack([torch.bincount(c, minlength=CODES) for c in out.codes_MG.T]) / len(x)
    torch.testing.assert_close(share, out.probs_GV.detach(), atol=0.015, rtol=0.0)


def test_noise_comes_from_the_generator_only() -> None:
    model = quantizer().train()
    torch.manual_seed(1)
    a = model(frames(), generator=generator(5)).codes_MG
    torch.manual_seed(2)
    assert torch.equal(a, model(frames(), generator=generator(5)).codes_MG)
    assert not torch.equal(a, model(frames(), generator=generator(6)).codes_MG)
    with pytest.raises(ValueError, match="needs a generator"):
        model(frames())


def test_perplexity_by_hand_and_its_gradient_at_zero() -> None:
    probs = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0.0, 0.0, 0.0]], requires_grad=True)
    value = perplexity(probs)
    value.backward()
    assert value.item() == pytest.approx(5.0)
    assert probs.grad is not None
    assert probs.grad.isfinite().all()


def test_temperature_is_saved_with_the_weights() -> None:
    model = quantizer()
    model.set_temperature(0.625)
    other = quantizer(seed=1)
    other.load_state_dict(model.state_dict())
    assert float(other.temperature) == 0.625


@pytest.mark.parametrize(
    "kwargs", [{"dim": 7, "groups": 2, "codes": 4}, {"dim": 8, "groups": 0, "codes": 4}]
)
def test_bad_sizes(kwargs: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="multiple of groups"):
        GumbelQuantizer(4, **kwargs)


def test_bad_calls() -> None:
    model = quantizer().eval()
    with pytest.raises(ValueError, match="at least one frame"):
        model(torch.zeros(0, WIDTH))
    with pytest.raises(ValueError, match="must be positive"):
        model.set_temperature(0.0)
