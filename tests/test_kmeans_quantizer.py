"""The k-means quantiser: nearest codes, what pulls at them, and what becomes of idle ones."""

import pytest
import torch

from mynah.upstream.core.kmeans_quantizer import KmeansQuantizer


def test_the_nearest_code_is_chosen() -> None:
    generator = torch.Generator().manual_seed(0)
    quantizer = KmeansQuantizer(6, groups=2, codes=5, shared=False)
    quantizer.vectors_GVC.data = torch.randn(2, 5, 3, generator=generator)
    z_NF = torch.randn(40, 6, generator=generator)
    distance_NGV = (z_NF.view(40, 2, 1, 3) - quantizer.vectors_GVC.data).norm(dim=3)
    codes_NG = quantizer.nearest(z_NF)
    assert torch.equal(codes_NG, distance_NGV.argmin(dim=2))
    found = quantizer.lookup(codes_NG).view(40, 2, 3)
    for n in range(40):
        for g in range(2):
            assert torch.equal(found[n, g], quantizer.vectors_GVC[g, codes_NG[n, g]])


def test_frames_and_codes_are_pulled_together() -> None:
    """The gradient of the two squared distances, in closed form."""
    quantizer = KmeansQuantizer(4, groups=2, codes=3, shared=False, commitment=0.5)
    quantizer.norm.requires_grad_(False)
    x_BTF = torch.randn(1, 9, 4, generator=torch.Generator().manual_seed(0))
    found = quantizer(x_BTF, None)
    z_MF = quantizer.project(x_BTF, None)[0].detach()
    chosen_MF = quantizer.lookup(found.codes_MG).detach()
    square = (z_MF - chosen_MF).square().mean()
    assert float(found.loss.detach()) == pytest.approx(1.5 * float(square), rel=1e-5)
    found.loss.backward()
    pull = torch.zeros(2, 3, 2)
    for m in range(9):
        for g in range(2):
            part = slice(2 * g, 2 * g + 2)
            pull[g, found.codes_MG[m, g]] += 2 * (chosen_MF - z_MF)[m, part] / 36
    torch.testing.assert_close(quantizer.vectors_GVC.grad, pull)


def test_idle_codes_are_put_on_frames() -> None:
    """All codes begin idle: after a step, those that no frame chose lie on frames."""
    for shared in (False, True):
        quantizer = KmeansQuantizer(6, groups=2, codes=5, shared=shared, patience=3)
        quantizer.vectors_GVC.data[:, 2:] += 100
        x_BTF = torch.randn(2, 30, 6, generator=torch.Generator().manual_seed(0))
        z_NGC = quantizer.project(x_BTF, None).detach().reshape(60, 2, 3)
        before = quantizer.vectors_GVC.detach().clone()
        used = [set(quantizer.eval()(x_BTF, None).codes_MG[:, g].tolist()) for g in range(2)]
        if shared:
            used = [used[0] | used[1]]
        quantizer.train()(x_BTF, None, generator=torch.Generator().manual_seed(1))
        quantizer.after_step()
        for g, chosen in enumerate(used):
            for v in range(5):
                vector = quantizer.vectors_GVC[g, v].detach()
                on_frame = bool((z_NGC[:, g] - vector).abs().sum(dim=1).min() == 0)
                assert torch.equal(vector, before[g, v]) == (v in chosen)
                assert on_frame == (v not in chosen)
        moved = quantizer.vectors_GVC.detach().clone()
        quantizer.after_step()  # nothing was quantised in between
        assert torch.equal(quantizer.vectors_GVC, moved)
        with pytest.raises(ValueError, match="with patience draws frames and needs a generator"):
            quantizer(x_BTF, None)


def test_a_code_is_left_alone_until_it_was_idle_for_long() -> None:
    quantizer = KmeansQuantizer(4, groups=1, codes=2, shared=False, patience=3).train()
    x_BTF = torch.randn(1, 20, 4, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    quantizer(x_BTF, None, generator=generator)
    quantizer.after_step()
    quantizer.vectors_GVC.data[:, 1] = 50.0
    for step in range(3):
        quantizer(x_BTF, None, generator=generator)
        assert float(quantizer.vectors_GVC[0, 1, 0].detach()) == 50.0, step
        quantizer.after_step()
    assert float(quantizer.vectors_GVC[0, 1].detach().abs().max()) < 50.0
