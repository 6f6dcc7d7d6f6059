"""Specs: how a frozen upstream is named wherever one is asked for.

================================  =================================================================
``apc/tiny``                      a family and variant with random weights drawn from the seed
``exp/my_apc``                    a run folder (``final/`` or the newest whole checkpoint under
                                  ``checkpoints/``) or a model folder
``hf:<dir>``                      a Hugging Face model directory
``fairseq:<file.pt>``             a fairseq-style checkpoint
``torchaudio:<factory>``          a torchaudio factory, ``,ckpt=<file>`` for its weights, which are
                                  random without it
``s3prl:<hub name>``              an upstream of s3prl's hub, ``,ckpt=<file>`` where it takes one
``python:<file.py>:<Class>``      your own; this executes the file
================================  =================================================================

A name of a family wins over a folder of the same name: write ``./apc`` for the folder.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import re
from pathlib import Path

import torch

from mynah import registry, upstream
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Precision, Upstream
from mynah.upstream.core.devices import device_for

logger = logging.getLogger(__name__)

FOREIGN = ("fairseq", "hf", "python", "s3prl", "torchaudio")
FINAL = "final"
STEP = re.compile(r"step-(\d+)")


def load(
    spec: str,
    *,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> Upstream:
    """Return the frozen upstream that a spec names.

    Args:
        spec: see the table above.
        precision: of the frozen forward.
        device: where to put it; a name is one that :func:`device_for` takes.
        seed: of random weights (see :func:`untrained`); no other spec depends on it.

    Its ``source`` says what was loaded: a run that is still training has a newer model by and by, so
    whoever asks more about it asks :func:`describe` and :func:`training` about that.

    Raises:
        ValueError: an unknown kind of spec, a folder or file that is damaged, or no such device.
        LookupError: an unknown family or variant.
        FileNotFoundError: a path that does not exist.
    """
    if isinstance(device, str):
        device = device_for(device)
    kind, rest = split(spec)
    if kind == "family":
        model = upstream.build(rest, seed=seed)
    elif kind == "folder":
        path = newest(rest)
        spec = str(path)
        if path != Path(rest) and not (Path(rest) / FINAL).is_dir():
            logger.warning(
                "%s has no %s model, its training has not ended: %s is taken, its newest "
                "checkpoint; after the next one the same name means another model",
                *(rest, FINAL, path.name),
            )
        model = modelfolder.load(path)
    else:
        module = importlib.import_module(f"mynah.upstream.interop.{kind}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = module.load(rest)
        if untrained(spec):
            logger.warning(
                "%s has random weights, drawn from seed %d: %s,ckpt=<file> gives it trained ones",
                *(spec, seed, spec),
            )
    model.source = spec
    return model.to(device).freeze(precision)


def split(spec: str) -> tuple[str, str]:
    """Return the kind of a spec and what it says: ``("hf", "dir")``, ``("family", "apc/tiny")``.

    Raises:
        ValueError: an unknown prefix, or nothing after it.
        LookupError: neither a folder nor a family.
        FileNotFoundError: a path that does not exist.
    """
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in FOREIGN:
        if not rest:
            raise ValueError(f"spec {spec!r} says nothing after the colon")
        return prefix, rest
    if spec.partition("/")[0] in upstream.available():
        return "family", spec
    if Path(spec).is_dir():
        return "folder", spec
    if colon and re.fullmatch(r"[a-z0-9_]+", prefix):
        raise ValueError(registry.unknown("kind of upstream spec", prefix, FOREIGN))
    if Path(spec).is_file():
        raise ValueError(
            f"{spec} is a file: give the folder of a run or model, hf:<dir> or fairseq:<file>"
        )
    if _is_path(spec):
        more = "; it is no upstream either ('mynah list upstreams' shows them)"
        raise FileNotFoundError(f"no such folder: {spec}{more if spec[0] not in './~' else ''}")
    raise LookupError(
        upstream.unknown(spec)
        + " A folder of a run or a model also does, and "
        + ", ".join(f"{name}:..." for name in FOREIGN)
        + "."
    )


def _is_path(spec: str) -> bool:
    """Return whether what is nothing here was meant as a path; ``family/variant`` has a slash, too."""
    family, slash, variant = spec.partition("/")
    if spec.startswith((".", "/", "~")) or spec.endswith("/") or "/" in variant:
        return True
    alike = upstream.variants_called(family) or registry.closest(family, upstream.known())
    return bool(Path(spec).suffix or (slash and (Path(family).is_dir() or not alike)))


def candidates(folder: str | Path) -> list[Path]:
    """Return the model folders of a run folder, the newest first; a model folder is its own."""
    folder = Path(folder)
    if (folder / modelfolder.CONFIG).is_file() and (folder / modelfolder.WEIGHTS).exists():
        return [folder]
    steps = [p for p in (folder / "checkpoints").glob("step-*") if STEP.fullmatch(p.name)]
    steps.sort(key=lambda p: int(p.name.removeprefix("step-")), reverse=True)
    final = folder / FINAL
    return ([final] if final.is_dir() else []) + steps


def newest(folder: str | Path) -> Path:
    """Return the newest whole model folder of a run; damaged ones are skipped with a warning.

    Raises:
        modelfolder.DamagedError: every one is damaged.
        ValueError: there is none, or none that this version reads.
    """
    if modelfolder.is_hugging_face(folder):
        raise ValueError(
            f"{folder} looks like a Hugging Face model (its {modelfolder.CONFIG} names a model_type): "
            f"use hf:{folder}"
        )
    found = candidates(folder)
    if not found:
        raise ValueError(
            f"{folder} is neither a model folder ({modelfolder.CONFIG}, {modelfolder.WEIGHTS}) nor "
            "a run folder (final/ or checkpoints/step-*/)"
        )
    problems: list[str] = []
    kind: type[ValueError] = ValueError
    for path in found:
        try:
            modelfolder.verify(path)
        except ValueError as error:
            problems.append(str(error))
            kind = modelfolder.DamagedError if isinstance(error, modelfolder.DamagedError) else kind
            continue
        for problem in problems:
            logger.warning("skipped a damaged checkpoint: %s", problem)
        return path
    raise kind(f"{folder} holds no whole model: " + "; ".join(problems))


def describe(spec: str, *, seed: int = 0) -> str:
    """Return a short id for tables and file names: letters, digits and ``._@-`` only.

    ``apc/tiny`` gives ``apc-tiny-untrained`` (``fbank-base`` where there are no weights), a run
    folder or one of its models ``apc-tiny@<folder>-<step or final>-<six digits of the weights'
    sha256>``, anything else its kind, its name, and six digits of the sha256 of what the spec says
    (and ``-untrained`` where that leaves the weights to the seed).

    Raises:
        ValueError, LookupError, FileNotFoundError: as :func:`load`.
    """
    kind, rest = split(spec)
    if kind == "family":
        family, _, variant = rest.partition("/")
        text = f"{family}-{variant or 'base'}"
    elif kind == "folder":
        path = newest(rest)
        head = modelfolder.verify(path)
        run, part = _place(path)
        text = f"{head['upstream']}-{head['variant']}@{run}{part}-{head['sha256'][:6]}"
    else:
        names = [Path(part).stem for part in re.split("[:,]", rest)]
        digest = hashlib.sha256(rest.encode()).hexdigest()[:6]
        text = "-".join([kind, *names, digest])
    if untrained(spec):
        text += "-untrained" + (f"-seed{seed}" if seed else "")
    return _safe(text)


def training(spec: str) -> tuple[str, int] | None:
    """Return the run that a spec's model is of and after how many steps, None where not known.

    Raises:
        ValueError, LookupError, FileNotFoundError: as :func:`load`.
    """
    kind, rest = split(spec)
    if kind != "folder":
        return None
    path = newest(rest)
    head = modelfolder.verify(path)
    trained = head.get("trained")
    step = head.get("step", trained.get("steps") if isinstance(trained, dict) else None)
    if not isinstance(step, int) or step < 0:
        return None
    return _safe(f"{head['upstream']}-{head['variant']}@{_place(path)[0]}"), step


def _place(path: Path) -> tuple[str, str]:
    """Return the name of a model folder's run, and which of the run's models it is."""
    path = path.resolve()
    if STEP.fullmatch(path.name) and path.parent.name == "checkpoints":
        return path.parent.parent.name, f"-{path.name}"
    if path.name == FINAL and path.parent.name:
        return path.parent.name, f"-{FINAL}"
    return path.name, ""


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._@-]+", "_", text)


def untrained(spec: str) -> bool:
    """Return whether a spec names no weights, so that they are random and drawn from the seed.

    Raises:
        ValueError, LookupError, FileNotFoundError: as :func:`split`; an unknown variant.
    """
    kind, rest = split(spec)
    if kind == "family":
        return has_weights(rest)
    return kind == "torchaudio" and "ckpt=" not in rest


def has_weights(name: str) -> bool:
    """Return whether a family has anything to train, without paying for its initialisation.

    Raises:
        LookupError: unknown family or variant.
    """
    with torch.device("meta"):
        model = upstream.build(name)
    return any(True for _ in model.parameters())
