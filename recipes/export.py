"""``mynah export SPEC --as TARGET --out DIR``: a model for other programs.

Each export is a folder with a card, ``README.md``. What was written is loaded back in the target's
own way and held against the upstream at several lengths; if it is not the same function, or
anything else fails, nothing is left behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from mynah.recipes.exporting.compare import Heard
    from mynah.upstream.core.contract import Upstream


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write a model of one of our families for other programs, and check that it is the same."""

    spec: Annotated[str, Positional]
    """The model: a run or model folder, hf:DIR, fairseq:FILE, s3prl:FILE, apc/tiny ..."""
    target: Annotated[
        Literal["s3prl", "hf-challenge", "onnx", "torch-export", "torchscript"], arg(name="as")
    ]
    """s3prl: a folder that s3prl and torch.hub load; it runs mynah. hf-challenge: the SUPERB
    challenge's folder, which needs torch only. onnx, torch-export, torchscript: a graph, one
    waveform (1, S) of any length in, every hidden state (L, T, D) out."""
    out: Path
    """The folder to make; it must not exist, or be empty."""
    seed: int = 0
    """Of random weights, where the model has none."""


def facts_of(model: Upstream, source: str) -> dict[str, str]:
    """Return what an export says of its model, as text."""
    import torch

    from mynah import __version__
    from mynah.upstream.core.modelfolder import variant_of

    return {
        "upstream": model.name,
        "variant": variant_of(model),
        "parameters": str(sum(p.numel() for p in model.parameters())),
        "sample_rate": str(model.sample_rate),
        "stride": str(model.stride),
        "layers": str(model.num_layers),
        "dim": str(model.dim),
        "shortest": "1",
        "fingerprint": model.fingerprint(),
        "source": source,
        "mynah": __version__,
        "torch": torch.__version__,
    }


def write(model: Upstream, target: str, folder: Path, facts: dict[str, str]) -> list[Heard]:
    """Write an export into an empty folder, without its card, and compare what it computes.

    Args:
        model: frozen, of one of our families.
        target: as of :class:`Args`.
        folder: exists.
        facts: of :func:`facts_of`; the lengths that it takes are added.

    Raises:
        ValueError: the model cannot be a graph, or a package is missing.
        MismatchError: the export computes something else.
        OSError: the disk is full.
    """
    from mynah.recipes.exporting import folders, graphs
    from mynah.recipes.exporting.compare import compare
    from mynah.recipes.exporting.plain import plain

    what = f"--as {target}"
    if target == "s3prl":
        folders.write_s3prl(model, folder, {"kind": "export", "spec": facts["source"]})
        return compare(model, folders.read_expert(folder), shortest=1, what=what)
    kind = graphs.TARGETS["torchscript" if target == "hf-challenge" else target]
    kind.check()
    function = plain(model)
    shortest = function.two if kind.symbolic else function.shortest
    facts["shortest"] = str(shortest)
    if kind.symbolic and function.longest is not None:
        facts["longest"] = str(function.longest)
    if target == "hf-challenge":
        folders.write_challenge(function, folder, facts)
        heard = folders.read_expert(folder)
    else:
        kind.write(function, folder / kind.file, facts)
        heard = kind.read(folder / kind.file)
    return compare(
        model,
        heard,
        shortest=shortest,
        limit=function.longest,
        limited=kind.symbolic,
        what=what,
    )


def main(args: Args) -> int:
    """Export, compare, and say how far apart they are.

    Raises:
        ValueError: OUT holds something, the model is none of our families or cannot be a graph.
        LookupError, FileNotFoundError: no such model.
        MismatchError: the export computes something else; nothing is left behind.
        OSError: the disk is full; nothing is left behind.
    """
    from mynah.recipes.import_model import convert, fresh, refuse_unless_free
    from mynah.recipes.progress import console

    refuse_unless_free(args.out)

    from mynah.files import write_text
    from mynah.recipes.exporting.card import card
    from mynah.recipes.exporting.compare import ALLOWED

    model = convert(args.spec, seed=args.seed, verb="export").freeze()
    facts = facts_of(model, args.spec)
    with fresh(args.out) as folder:
        heard = write(model, args.target, folder, facts)
        title = args.out.resolve().name
        text = card(title, target=args.target, facts=facts, heard=heard, allowed=ALLOWED)
        write_text(folder / "README.md", text)
    for one in heard:
        console.print(
            f"{one.samples} samples, {one.frames} frames: {one.difference:.1e} relative",
            markup=False,
        )
    console.print(
        f"{args.out}: {facts['upstream']}/{facts['variant']} as {args.target}, the same to "
        f"{max(one.difference for one in heard):.1e} (allowed {ALLOWED:.0e})",
        markup=False,
    )
    return 0
