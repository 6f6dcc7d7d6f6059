"""The upstream contract, clause by clause, runnable on anybody's model.

Each clause is a function whose docstring is the promise; it returns what it measured, or raises
:class:`Broken` or :class:`Skip`.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Batch, Upstream
from mynah.upstream.core.nasty import Signals, relative, rows, same, together
from mynah.upstream.core.packed_linear import cpu_multiplies_bf16

Status = Literal["PASS", "FAIL", "SKIP"]

INVARIANCE = 1e-5
BF16 = 0.05
FLOPS = 1.1


@dataclass(frozen=True, kw_only=True)
class Clause:
    """One promise of the contract and whether it is kept.

    Attributes:
        name: short name.
        promise: what is promised, in a sentence.
        status: PASS, FAIL, or SKIP where the promise does not apply or cannot be tested here.
        why: the measurement, or what is wrong.
    """

    name: str
    promise: str
    status: Status
    why: str


class Skip(Exception):  # noqa: N818  not an error
    """Raised by a clause that does not apply."""


class Broken(Exception):  # noqa: N818  the model's error, not ours
    """Raised by a clause that is not kept."""


def check(upstream: Upstream, *, seed: int = 0) -> list[Clause]:
    """Return the outcome of every clause; the upstream is frozen (fp32) if it is not yet.

    Args:
        upstream: on any device.
        seed: of the test signals.
    """
    if not upstream.frozen or upstream.precision != "fp32":
        upstream.freeze("fp32")
    signals = Signals(upstream, seed)
    clauses = []
    for name, (promise, clause) in CLAUSES.items():
        status: Status = "PASS"
        try:
            why = clause(upstream, signals)
        except Skip as reason:
            status, why = "SKIP", str(reason)
        except Broken as reason:
            status, why = "FAIL", str(reason)
        except Exception as error:  # noqa: BLE001  anybody's model may raise anything
            status, why = "FAIL", f"raised {type(error).__name__}: {error}"
        clauses.append(Clause(name=name, promise=promise, status=status, why=why))
    return clauses


def require(kept: bool, why: str) -> None:
    """Raise Broken with the reason unless kept."""
    if not kept:
        raise Broken(why)


def facts(upstream: Upstream, signals: Signals) -> str:
    """Declared width, number of states, stride and sample rate are the real ones."""
    for name in ("sample_rate", "dim", "num_layers", "stride"):
        value = getattr(upstream, name, None)
        require(isinstance(value, int) and value > 0, f"{name} is {value!r}, not a positive int")
    wav = signals.wavs[-1][: 2 * upstream.sample_rate]
    states = list(upstream.hidden_states([wav]))
    require(
        len(states) == upstream.num_layers,
        f"num_layers is {upstream.num_layers}, hidden_states yields {len(states)}",
    )
    for index, state in enumerate(states):
        require(
            state.ndim == 2 and state.shape[1] == upstream.dim and state.dtype == torch.float32,
            f"state {index} is {state.dtype} {tuple(state.shape)}, not float32 (N, {upstream.dim})",
        )
    start, steps = 5 * upstream.sample_rate, 100
    gained = upstream.num_frames(start + steps * upstream.stride) - upstream.num_frames(start)
    require(
        gained == steps,
        f"{steps} strides of {upstream.stride} samples add {gained} frames",
    )
    return (
        f"{upstream.num_layers} states of width {upstream.dim}, one per {upstream.stride} samples "
        f"at {upstream.sample_rate} Hz"
    )


def num_frames(upstream: Upstream, signals: Signals) -> str:
    """num_frames is exact for nasty lengths, at least 1, and an empty utterance is refused."""
    for n, wav in zip(signals.lengths, signals.wavs, strict=True):
        said = upstream.num_frames(n)
        require(said >= 1, f"num_frames({n}) is {said}")
        for index, state in enumerate(upstream.hidden_states([wav])):
            require(
                len(state) == said, f"{n} samples: num_frames {said}, state {index} {len(state)}"
            )
    try:
        upstream(torch.zeros(1, 5, device=signals.device), torch.tensor([0]))
    except ValueError:
        pass
    else:
        raise Broken("an utterance of 0 samples is not refused with a ValueError")
    return f"{len(signals.lengths)} lengths from 1 sample to {signals.lengths[-1]}"


def invariance(upstream: Upstream, signals: Signals) -> str:
    """An utterance's features do not depend on its neighbours."""
    batch = together(upstream, signals.wavs)
    worst = 0.0
    for n, got, alone in zip(signals.lengths, rows(batch), signals.alone(upstream), strict=True):
        reference = alone.layers_LBTD[:, 0]
        require(
            got.shape == reference.shape,
            f"{n} samples: shape {tuple(got.shape)} in the batch, {tuple(reference.shape)} alone",
        )
        error = relative(got, reference)
        require(
            error <= INVARIANCE,  # a NaN is not
            f"{error:.1e} relative at {n} samples, allowed {INVARIANCE:.0e}",
        )
        worst = max(worst, error)
    return f"{worst:.1e} relative over {len(signals.lengths)} utterances of mixed lengths"


def padding(upstream: Upstream, signals: Signals) -> str:
    """What lies in the padding does not matter, and nothing but zeros comes out there."""
    wavs = [w for w in signals.wavs if len(w) <= 3 * upstream.sample_rate]
    clean = together(upstream, wavs)
    for value in (1.0, float("nan")):
        other = together(upstream, wavs, padding=value)
        require(
            same(other.layers_LBTD, clean.layers_LBTD),
            f"{value} in the padding instead of 0 changes the features",
        )
    expected = [upstream.num_frames(len(wav)) for wav in wavs]
    require(
        clean.lengths_B.tolist() == expected and clean.lengths_B.dtype == torch.int64,
        f"lengths_B is {clean.lengths_B.dtype} {clean.lengths_B.tolist()}, expected {expected}",
    )
    for row, n in enumerate(expected):
        require(
            bool((clean.layers_LBTD[:, row, n:] == 0).all()),
            f"the padding of row {row} (from frame {n}) is not exactly zero",
        )
    return "bit-equal with 0, 1 and NaN as padding; zeros after each last frame"


def determinism(upstream: Upstream, signals: Signals) -> str:
    """The same call gives the same bits and draws no random numbers."""
    wavs = [w for w in signals.wavs if len(w) <= 3 * upstream.sample_rate]
    before = (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()))  # noqa: NPY002  the global one is meant
    first = together(upstream, wavs).layers_LBTD
    second = together(upstream, wavs).layers_LBTD
    after = (torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state()))  # noqa: NPY002
    require(same(first, second), f"two calls differ by {relative(first[:, 0], second[:, 0]):.1e}")
    require(before == after, "the forward draws from a global random generator")
    return "two calls are bit-equal, no random number is drawn"


def frozen(upstream: Upstream, signals: Signals) -> str:
    """Nothing can train it: no gradient, train() has no effect, no weight changes, no loss."""
    wav = signals.wavs[-1][: upstream.sample_rate]
    fingerprint = upstream.fingerprint()
    trainable = [name for name, p in upstream.named_parameters() if p.requires_grad]
    require(not trainable, f"requires a gradient: {', '.join(trainable[:5])}")
    before = together(upstream, [wav]).layers_LBTD
    require(not before.requires_grad, "the features carry a gradient")
    upstream.train()
    training = [name or "the model" for name, m in upstream.named_modules() if m.training]
    upstream.eval()
    require(not training, f"train() switches to training mode: {', '.join(training[:5])}")
    after = together(upstream, [wav]).layers_LBTD
    require(same(before, after), "the features change after train()")
    require(upstream.fingerprint() == fingerprint, "the forward changes weights or buffers")
    batch = Batch(
        wav_BS=wav[None],
        lengths_B=torch.tensor([len(wav)]),
        ids=("a",),
        generator=torch.Generator().manual_seed(0),
    )
    try:
        upstream.loss(batch)
    except (RuntimeError, TypeError, ValueError):
        pass
    else:
        raise Broken("loss() of a frozen upstream is not refused")
    return f"sha256 of weights and config {fingerprint[:12]} before and after"


def finite(upstream: Upstream, signals: Signals) -> str:
    """Any length, silence, DC, clipping and tiny or loud noise give finite features."""
    for n, alone in zip(signals.lengths, signals.alone(upstream), strict=True):
        require(
            bool(alone.layers_LBTD.isfinite().all()),
            f"{n} samples ({upstream.num_frames(n)} frames) give NaN or infinity",
        )
    rate = upstream.sample_rate
    noise = torch.randn(rate // 2, generator=signals.generator)
    time = torch.arange(rate // 2) / rate
    odd = {
        "silence": torch.zeros(rate // 2),
        "one silent sample": torch.zeros(1),
        "DC": torch.full((rate // 2,), 0.5),
        "clipping": torch.sin(2 * torch.pi * 100 * time).mul(1e3).clamp(-1, 1),
        "noise of 1e-6": noise * 1e-6,
        "noise of 1e-30": noise * 1e-30,
        "full-scale noise": noise.clamp(-1, 1),
        "a single click": torch.nn.functional.pad(torch.ones(1), (0, rate // 2 - 1)),
    }
    wavs = [wav.to(signals.device) for wav in odd.values()]
    for name, states in zip(odd, rows(together(upstream, wavs)), strict=True):
        require(bool(states.isfinite().all()), f"{name} gives NaN or infinity")
    return ", ".join(odd)


def bf16(upstream: Upstream, signals: Signals) -> str:
    """Frozen in bf16 it stays finite and within 5 % of fp32, and fp32 comes back unharmed."""
    wavs = [w for w in signals.wavs if upstream.sample_rate // 10 <= len(w)]
    wavs = [w for w in wavs if len(w) <= 3 * upstream.sample_rate]
    reference = together(upstream, wavs)
    upstream.freeze("bf16")
    try:
        half = together(upstream, wavs)
        require(half.layers_LBTD.dtype == torch.float32, f"features are {half.layers_LBTD.dtype}")
        errors = [relative(x, r) for x, r in zip(rows(half), rows(reference), strict=True)]
    finally:
        upstream.freeze("fp32")
    require(bool(half.layers_LBTD.isfinite().all()), "NaN or infinity in bf16")
    again = together(upstream, wavs)
    require(same(again.layers_LBTD, reference.layers_LBTD), "fp32 after bf16 is not the same")
    require(max(errors) <= BF16, f"{max(errors):.1%} relative, allowed {BF16:.0%}")
    if same(half.layers_LBTD, reference.layers_LBTD):
        cannot = signals.device.type == "cpu" and not cpu_multiplies_bf16()
        raise Skip(
            "it computes in float32 here, "
            + ("the CPU has no bfloat16 instructions" if cannot else "bf16 changes no bit")
        )
    return f"{max(errors):.2%} relative at the worst layer and utterance"


def round_trip(upstream: Upstream, signals: Signals) -> str:
    """Saved and loaded it gives the same features."""
    try:
        modelfolder.variant_of(upstream)
    except ValueError as error:
        raise Skip("not a family of mynah.upstream, so it has no model folder") from error
    wavs = [w for w in signals.wavs if len(w) <= 3 * upstream.sample_rate]
    with tempfile.TemporaryDirectory() as folder:
        modelfolder.save(upstream, folder)
        again = modelfolder.load(folder).to(signals.device).freeze("fp32")
    require(again.fingerprint() == upstream.fingerprint(), "the fingerprint changes")
    require(
        same(together(again, wavs).layers_LBTD, together(upstream, wavs).layers_LBTD),
        "the features change",
    )
    return "features and fingerprint are equal"


def cost(upstream: Upstream, signals: Signals) -> str:
    """A batch costs what its utterances cost alone: no work is spent on padding."""
    rate = upstream.sample_rate
    wavs = [signals.wavs[-1][:n] for n in (rate // 4, rate // 2, rate, 6 * rate)]

    def flops(batch: list[Tensor]) -> int:
        with FlopCounterMode(display=False) as counter:
            together(upstream, batch)
        return int(counter.get_total_flops())

    alone = sum(flops([wav]) for wav in wavs)
    if alone == 0:
        raise Skip("no countable matrix product or convolution")
    ratio = flops(wavs) / alone
    require(ratio <= FLOPS, f"{ratio:.2f} x the products of its utterances, allowed {FLOPS}")
    return f"{ratio:.2f} x the products of its utterances (0.25 to 6 s)"


CLAUSES: dict[str, tuple[str, Callable[[Upstream, Signals], str]]] = {
    clause.__name__: ((clause.__doc__ or "").strip(), clause)
    for clause in (
        facts,
        num_frames,
        invariance,
        padding,
        determinism,
        frozen,
        finite,
        bf16,
        round_trip,
        cost,
    )
}
