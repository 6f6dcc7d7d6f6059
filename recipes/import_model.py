"""``mynah import SRC OUT``: somebody else's checkpoint as a model folder of ours.

The folder holds ``model.safetensors`` and ``config.json`` as every model folder does, and a card,
``README.md``. It is written beside OUT and renamed, so OUT is either whole or not there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from mynah.files import new_folder, sha256_of, write_text

if TYPE_CHECKING:
    from mynah.upstream.core.contract import Upstream

log = logging.getLogger(__name__)

KINDS = {
    "family": "random weights",
    "fairseq": "fairseq-style checkpoint",
    "folder": "model folder of mynah",
    "hf": "Hugging Face directory",
    "s3prl": "checkpoint of s3prl or of the authors' own code",
    "torchaudio": "torchaudio factory",
}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write any model of a family that we have as a model folder, with a card."""

    src: Annotated[str, Positional]
    """The model: ``hf:DIR``, ``fairseq:FILE``, ``s3prl:FILE``, ``torchaudio:FACTORY[,ckpt=FILE]``,
    a run folder, a model folder, or ``FAMILY/VARIANT`` with random weights."""
    out: Annotated[Path, Positional]
    """The folder to make; it must not exist, or be empty."""
    seed: int = 0
    """Of random weights, where the model has none."""


def convert(spec: str, *, seed: int = 0, verb: str = "import") -> Upstream:
    """Return the model that a spec names, as one of our families.

    Args:
        spec: see ``src`` of :class:`Args`.
        seed: of random weights.
        verb: what is to be done with it, for the message where it cannot be.

    Raises:
        ValueError: a model that is run by its own code, or a damaged one.
        LookupError: an unknown family, variant, factory or name of s3prl's hub.
        FileNotFoundError: a path that does not exist.
        BadDataError: weights that are not numbers.
    """
    import torch

    from mynah import upstream
    from mynah.upstream.core.spec import load, split
    from mynah.upstream.interop import s3prl_hub, torchaudio

    kind, rest = split(spec)
    model: Upstream | None
    name = rest.partition(",")[0]
    if kind == "python":
        model = None
    elif kind == "s3prl" and not Path(name).is_file():
        s3prl_hub.hub_with(name)
        model = None
    elif kind == "torchaudio":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = torchaudio.convert(rest)
    else:
        model = load(spec, seed=seed)
    if model is None or model.name not in upstream.available():
        hint = ""
        if kind == "s3prl" and "ckpt=" in rest:
            hint = (
                f" s3prl:{rest.partition('ckpt=')[2]} reads the file itself, if it is of a family."
            )
        raise ValueError(
            f"{spec} is run by its own code and is none of our families "
            f"({', '.join(upstream.available())}), so there is nothing to {verb}: use {spec!r} "
            f"itself wherever an upstream is asked for.{hint}"
        )
    refuse_nonfinite(model, spec)
    return model


def refuse_nonfinite(model: Upstream, spec: str) -> None:
    """Refuse weights that no training that went well leaves behind.

    Buffers may hold infinities (masks do), but no NaN.

    Raises:
        BadDataError: a tensor holds NaN, or a weight an infinity; the message names the first.
    """
    from mynah.recipes.errors import BadDataError

    weights = {name for name, _ in model.named_parameters()}
    for name, tensor in model.state_dict().items():
        wrong = ~tensor.isfinite() if name in weights else tensor.isnan()
        if count := int(wrong.sum()):
            raise BadDataError(
                f"{spec}: {count} of the {tensor.numel()} values of {name} are NaN or infinite, so "
                "every feature would be: the training diverged or the file is damaged; take an "
                "earlier checkpoint, or fetch it again"
            )


def sources(spec: str) -> list[Path]:
    """Return the files that the weights and settings of a spec are read from."""
    from mynah.upstream.core import modelfolder
    from mynah.upstream.core.spec import newest, split
    from mynah.upstream.interop import hf

    kind, rest = split(spec)
    if kind == "folder":
        folder = newest(rest)
        return [folder / modelfolder.CONFIG, folder / modelfolder.WEIGHTS]
    if kind == "hf":
        return hf.files(rest)
    if kind in ("fairseq", "s3prl"):
        return [Path(rest)]
    if kind == "torchaudio":
        return [Path(option.removeprefix("ckpt=")) for option in rest.split(",")[1:]]
    return []


def card(model: Upstream, *, name: str, source: Mapping[str, Any]) -> str:
    """Return the text of the folder's README.

    Args:
        model: what the folder holds.
        name: of the folder.
        source: ``kind``, ``files`` (name -> sha256) and, for random weights, ``seed``.
    """
    from mynah.upstream.core.modelfolder import variant_of

    ms = 1000 * model.stride / model.sample_rate
    facts = {
        "family": f"`{model.name}`, variant `{variant_of(model)}`",
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "hidden states": f"{model.num_layers} (as SUPERB counts them)",
        "width": model.dim,
        "stride": f"{model.stride} samples = {ms:g} ms",
        "sample rate": f"{model.sample_rate} Hz",
        "fingerprint": f"`{model.fingerprint()}`",
        "source": KINDS[source["kind"]],
    }
    rows = [f"| {key} | {value} |" for key, value in facts.items()]
    files = [f"| `{file}` | `{digest}` |" for file, digest in source["files"].items()]
    if not files:
        rows.append(f"| trained | no: random weights of seed {source['seed']} |")
    config = [f"    {key}: {value}" for key, value in model.config_dict().items()]
    return "\n".join(
        [
            f"# {name}",
            "",
            "A frozen or trainable speech upstream, written by `mynah import`.",
            "",
            "| what | |",
            "|---|---|",
            *rows,
            "",
            *(["| read from | sha256 |", "|---|---|", *files, ""] if files else []),
            f'Use: `mynah.upstream.core.spec.load("{name}")`, or `mynah probe {name} ks ...`.',
            "",
            "Licence: as the source; converting names changes nothing about it.",
            "",
            "Config:",
            "",
            *config,
            "",
        ]
    )


def write(model: Upstream, out: Path, *, source: Mapping[str, Any]) -> None:
    """Write the model folder and its card: all of it or nothing.

    Args:
        model: of one of our families.
        out: must not exist, or be an empty folder.
        source: see :func:`card`; kept in ``config.json``, too.

    Raises:
        ValueError: ``out`` is there and not an empty folder.
        OSError: the disk is full or refuses.
    """
    from mynah.upstream.core import modelfolder

    with fresh(out) as folder:
        modelfolder.save(model, folder, extra={"source": dict(source)})
        text = card(model, name=out.resolve().name, source=source)
        write_text(folder / "README.md", text)


@contextmanager
def fresh(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``out``; rename it to ``out`` if the block succeeds.

    Raises:
        ValueError: ``out`` is there and not an empty folder.
    """
    refuse_unless_free(out)
    with new_folder(out) as temporary:
        yield temporary


def refuse_unless_free(out: Path) -> None:
    """Refuse a place that holds something.

    Raises:
        ValueError: ``out`` is a file, or a folder that is not empty.
    """
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists() or out.is_symlink():
        raise ValueError(f"{out} is already there: give a new folder, or an empty one")


def main(args: Args) -> int:
    """Convert, write and say what was written.

    Raises:
        ValueError: OUT holds something, or SRC is none of our families.
        FileNotFoundError: SRC does not exist.
        BadDataError: SRC holds weights that are not numbers.
        OSError: the disk is full; nothing is left behind.
    """
    refuse_unless_free(args.out)
    from mynah.recipes.progress import console
    from mynah.upstream.core.modelfolder import variant_of
    from mynah.upstream.core.spec import split, untrained

    model = convert(args.src, seed=args.seed)
    if untrained(args.src):
        log.warning(
            "%s names no weights: the model is untrained, with random weights of seed %d",
            *(args.src, args.seed),
        )
    files = {path.name: sha256_of(path) for path in sources(args.src)}
    source: dict[str, Any] = {"kind": split(args.src)[0], "files": files}
    if not files:
        source["seed"] = args.seed
    write(model, args.out, source=source)
    size = sum(p.numel() for p in model.parameters())
    console.print(
        f"{args.out}: {model.name}/{variant_of(model)}, {size:,} parameters, {model.num_layers} "
        f"hidden states of width {model.dim}",
        markup=False,
    )
    return 0
