"""Teachers that follow their student: an exponential moving average of weights.

A teacher is a copy of (a part of) the model. It gets no gradient; after each optimiser step it
moves a little towards its student. BYOL, MoCo, data2vec and DinoSR learn from such a teacher.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def make_teacher(student: M) -> M:
    """Return a copy of a module whose parameters require no gradient."""
    teacher = copy.deepcopy(student)
    teacher.requires_grad_(False)
    return teacher


@torch.no_grad()
def ema_update(
    teacher: nn.Module,
    student: nn.Module,
    decay: float,
    *,
    buffers: Literal["copy", "keep"] = "copy",
) -> None:
    """Move a teacher towards its student: t <- decay t + (1 - decay) s, in float32.

    Parameters are averaged. Buffers are statistics or counters, whose average means little:

    * ``copy``: the teacher takes the student's, as fairseq's ``EMAModule`` (data2vec, DinoSR) does;
    * ``keep``: the teacher has its own, such as the BatchNorm statistics that its forward passes
      gather in BYOL and MoCo.

    Sources: Tarvainen and Valpola 2017 (arXiv 1703.01780); He et al. 2020 (arXiv 1911.05722)
    equation 2; Grill et al. 2020 (arXiv 2006.07733) equation 1.

    Args:
        teacher: float32 module, changed in place.
        student: module with the same parameter names and shapes, of any dtype.
        decay: share of itself that the teacher keeps, 0 (a copy) to 1 (unchanged).
        buffers: what happens to buffers.

    Raises:
        ValueError: decay out of range, unknown rule for buffers, modules whose parameters differ
            in name or shape, or a teacher that is not float32.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be between 0 and 1, got {decay}")
    if buffers not in ("copy", "keep"):
        raise ValueError(f"buffers must be 'copy' or 'keep', got {buffers!r}")
    ours, theirs = dict(teacher.named_parameters()), dict(student.named_parameters())
    _same(ours, theirs)
    for name, value in ours.items():
        if value.dtype != torch.float32:
            raise ValueError(
                f"the teacher's {name} is {value.dtype}: steps of an average are too small for "
                "less than float32"
            )
        value.lerp_(theirs[name].detach().to(value), 1 - decay)
    if buffers == "copy":
        kept, given = dict(teacher.named_buffers()), dict(student.named_buffers())
        _same(kept, given)
        for name, buffer in kept.items():
            buffer.copy_(given[name])


def _same(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Refuse tensors that do not belong together, naming the first few."""
    wrong = sorted(ours.keys() ^ theirs.keys())
    wrong += [name for name in ours if name in theirs and ours[name].shape != theirs[name].shape]
    if wrong:
        raise ValueError(
            f"teacher and student differ in {len(wrong)} tensors ({', '.join(wrong[:5])}): a "
            "teacher must be a copy of its student"
        )
