"""A model on disk: ``model.safetensors`` beside ``config.json``.

Written so that a crash cannot leave a half that looks whole, read without executing anything.
``config.json`` is written last and holds the sha256 of ``model.safetensors``: a folder is a whole
model exactly if the two agree. Into a fresh folder the pair is therefore atomic; over an older
model, a crash between the two renames leaves a pair that does not agree and is refused by name.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mynah import registry, upstream
from mynah.files import replacing, sha256_of, write_text
from mynah.upstream.core.contract import Upstream

FORMAT = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
RESERVED = ("format", "upstream", "variant", "config", "sha256")
MAX_CONFIG_BYTES = 1 << 20


class DamagedError(ValueError):
    """A model that was written here and is not whole, or not any more; the message names the file."""

    exit_code = 3  # bad data


# -- writing ------------------------------------------------------------------------------------


def save(
    model: Upstream, folder: str | os.PathLike[str], *, extra: Mapping[str, Any] | None = None
) -> None:
    """Write a model; the same model gives the same bytes.

    Args:
        model: an instance of a family of ``mynah.upstream``.
        folder: made if it does not exist; other files in it are left alone.
        extra: further JSON-ready keys of ``config.json`` (step, corpus, code version).

    Raises:
        ValueError: not one of our families, or ``extra`` holds a reserved key or no JSON.
        OSError: the disk is full or refuses; what was there before is left as it was.
    """
    extra = dict(extra or {})
    clash = sorted(set(extra) & set(RESERVED))
    if clash:
        raise ValueError(f"extra may not hold {clash}: {CONFIG} keeps these keys for itself")
    folder = Path(folder)
    head = {"format": FORMAT, "upstream": model.name, "variant": variant_of(model)}
    head["config"] = model.config_dict()
    json.dumps({**head, **extra}, allow_nan=False)  # refuse before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / WEIGHTS) as temporary:
        _write_tensors(model.state_dict(), temporary)
        head["sha256"] = sha256_of(temporary)
    text = json.dumps({**head, **extra}, indent=2, sort_keys=True, allow_nan=False)
    write_text(folder / CONFIG, text + "\n")


def variant_of(model: Upstream) -> str:
    """Return the name of the model's config among its family's, ``custom`` if it has none.

    Raises:
        ValueError: the model is not an instance of a family of ``mynah.upstream``.
    """
    if model.name not in upstream.known() or type(model) is not upstream.get(model.name).MODEL:
        raise ValueError(
            f"{type(model).__name__} (name {model.name!r}) is not a family of mynah.upstream and "
            f"cannot be saved as a model folder; families: {', '.join(upstream.available())}"
        )
    if model.variant is not None:
        return model.variant
    configs: Mapping[str, object] = upstream.get(model.name).CONFIGS
    return next((name for name, config in configs.items() if config == model.config), "custom")


def _write_tensors(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a safetensors file, tied ones once per name (the format has no ties)."""
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        whole = tensor.untyped_storage().nbytes() == tensor.nbytes
        tensors[key] = tensor if whole and place not in seen else tensor.clone()
        seen.add(place)
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from error


# -- reading ------------------------------------------------------------------------------------


def load(folder: str | os.PathLike[str]) -> Upstream:
    """Read a model written by :func:`save`; nothing in the folder is executed.

    Raises:
        FileNotFoundError: no such folder.
        DamagedError: as :func:`verify`.
        ValueError: not a model of a format and family that we know; the message says what
            is wrong and where.
    """
    folder = Path(folder)
    head = verify(folder)
    module = upstream.get(head["upstream"])
    where = folder / CONFIG
    # a family whose variants have different settings says which belong to a config
    kind = module.config_type(head["config"]) if hasattr(module, "config_type") else module.Config
    config = config_from(kind, head["config"], where=where)
    with torch.random.fork_rng(devices=[]):
        model: Upstream = module.MODEL(config)
    fill(model, folder / WEIGHTS)
    return model


def verify(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the contents of ``config.json`` after checking that the folder is a whole model.

    Checks the format, the family and the sha256 of the weights; builds nothing.

    Raises:
        FileNotFoundError: no such folder.
        DamagedError: half of a model, or other bytes than were written.
        ValueError: no model at all, or of a format or family that we do not know.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        kind = DamagedError if len(missing) == 1 else ValueError
        raise kind(f"{folder} is not a whole model folder: it has no {missing[0]}")
    head = _read_head(folder / CONFIG)
    actual = sha256_of(folder / WEIGHTS)
    if actual != head["sha256"]:
        raise DamagedError(
            f"{folder / WEIGHTS} is damaged or belongs to another {CONFIG}: its sha256 is "
            f"{actual[:12]}..., {CONFIG} says {head['sha256'][:12]}..."
        )
    return head


def is_hugging_face(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder's ``config.json`` is one of ``transformers`` and not one of ours."""
    path = Path(folder) / CONFIG
    try:
        small = path.is_file() and path.stat().st_size <= MAX_CONFIG_BYTES
        head = json.loads(path.read_text(encoding="utf-8")) if small else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(head, dict) and "model_type" in head and "format" not in head


def _read_head(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes: not a model's config")
    try:
        head = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(head, dict) or not isinstance(head.get("format"), int):
        raise ValueError(f"{path} is not the config of a model folder: it states no format number")
    if head["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {head['format']}, this version reads format {FORMAT}: "
            "use the version of mynah that wrote it"
        )
    wanted = {"upstream": str, "variant": str, "config": dict, "sha256": str}
    for key, kind in wanted.items():
        if not isinstance(head.get(key), kind):
            raise DamagedError(f"{path}: {key!r} must be of type {kind.__name__}")
    if head["upstream"] not in upstream.known():
        raise ValueError(
            f"{path}: " + registry.unknown("upstream", head["upstream"], upstream.available())
        )
    return head


def config_from(kind: type[Any], values: Mapping[str, Any], *, where: object) -> Any:
    """Return a config dataclass made from plain JSON values.

    Args:
        kind: the dataclass.
        values: field name -> value; every field without a default must be there.
        where: what the error messages name as the origin.

    Raises:
        ValueError: unknown field, missing field or a value of the wrong type.
    """
    names = [f.name for f in dataclasses.fields(kind)]
    for key in values:
        if key not in names:
            raise ValueError(f"{where}: " + registry.unknown("config field", key, names))
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ValueError(f"{where}: " + "; ".join(lines)) from error


def fill(model: Upstream, path: Path) -> None:
    """Copy the weights of a safetensors file into a model whose keys and shapes they must match.

    Names, shapes and types are compared from the file's header before any tensor is read.

    Raises:
        DamagedError: not a whole safetensors file.
        ValueError: keys, shapes or types that differ.
    """
    state = model.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118  not a dict
            given = {
                k: f"{s.get_dtype()} {tuple(map(int, s.get_shape()))}" for k, s in slices.items()
            }
            expected = {k: f"{DTYPES[v.dtype]} {tuple(v.shape)}" for k, v in state.items()}
            difference = diff(expected, given)
            if difference:
                raise ValueError(f"{path} does not fit {model.name}: {difference}")
            model.load_state_dict({key: file.get_tensor(key) for key in state}, strict=True)
    except SafetensorError as error:
        raise DamagedError(f"{path} is not a whole safetensors file: {error}") from error


DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def diff(expected: Mapping[str, str], given: Mapping[str, str], *, show: int = 5) -> str:
    """Return the difference of two name -> description maps in words, empty if there is none.

    Args:
        expected: what the model has, for example name -> type and shape.
        given: what the file has.
        show: how many names of each kind to spell out.
    """

    def listed(names: Sequence[str]) -> str:
        more = f" and {len(names) - show} more" if len(names) > show else ""
        return ", ".join(names[:show]) + more

    missing = sorted(set(expected) - set(given))
    extra = sorted(set(given) - set(expected))
    other = [
        f"{k} (is {given[k]}, must be {expected[k]})"
        for k in sorted(set(expected) & set(given))
        if given[k] != expected[k]
    ]
    parts = (("missing", missing), ("unexpected", extra), ("different", other))
    return "; ".join(f"{len(names)} {label}: {listed(names)}" for label, names in parts if names)


def plain(config: Any) -> dict[str, Any]:
    """Return settings as JSON has them, for a config that holds those of another model."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def from_plain(config_type: type[Any], values: Mapping[str, Any], *, where: str) -> Any:
    """Return the settings that :func:`plain` wrote; unlike a user's, they must all be there.

    Raises:
        ValueError: a setting is missing, unknown or of the wrong type.
    """
    missing = sorted({f.name for f in dataclasses.fields(config_type)} - set(values))
    if missing:
        raise ValueError(
            f"{where} must hold every setting, {', '.join(missing)} missing: it is best taken from a "
            "trained model (--teacher)"
        )
    return config_from(config_type, dict(values), where=where)
