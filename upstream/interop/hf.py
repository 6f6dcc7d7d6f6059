"""Hugging Face model directories: ``hf:<dir>``.

Reads ``config.json``, the weights (``model.safetensors``, its sharded form, or
``pytorch_model.bin`` read without executing anything) and ``preprocessor_config.json``, whose
``do_normalize`` says whether waveforms are normalised. Which model types become our own classes is
decided by :mod:`mynah.upstream.interop.families`; a head is dropped, except wav2vec 2.0's
pretraining head. Other speech models are run by ``transformers`` itself, one utterance at a time:
see :mod:`mynah.upstream.interop.hf_auto`.

Where the layers normalise first (``do_stable_layer_norm``), the last hidden state is taken after the
final layer norm, as SUPERB does; ``transformers`` lists it before. Waveforms are normalised with
sqrt(variance + 1e-7) as Hugging Face's feature extractor does; fairseq, which trained the published
models, adds 1e-5 (``normalize_eps``).
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.modelfolder import DamagedError
from mynah.upstream.interop import families, hf_auto, unpickle
from mynah.upstream.interop.settings import read_json

HEADS = ("quantizer.", "project_q.", "project_hid.")  # which belong to the pretrained model
DROPPED = ("lm_head.",)


def load(path: str | Path) -> Upstream:
    """Return the model in a Hugging Face directory.

    Raises:
        FileNotFoundError: no such directory, or a file that it needs is not there.
        DamagedError: a safetensors file that is not whole.
        ValueError: a model type or setting that is not known, or weights that do not fit.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no such directory: {folder} (models are not fetched by name: download it first, "
            "for example with 'hf download <id> --local-dir <dir>')"
        )
    settings = read_json(folder / "config.json")
    prefix = str(settings.get("model_type")).replace("-", "_") + "."
    state = _base(_weights(folder), prefix)
    model = families.from_hf(settings, state, folder)
    if model is not None:
        return model
    kind = settings.get("model_type")
    if hf_auto.known(kind):
        return hf_auto.wrap(folder, settings)
    raise ValueError(
        f"{folder}: no family reads model_type {kind!r}, and transformers has no speech model of "
        f"it; families that read Hugging Face directories: {', '.join(families.known('hf'))}"
    )


def _base(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the base model's weights and pretraining heads, without the prefix and other heads."""
    if not any(name.startswith(prefix) for name in state):
        return {name: tensor for name, tensor in state.items() if not name.startswith(DROPPED)}
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith((prefix, *HEADS))
    }


def files(path: str | Path) -> list[Path]:
    """Return the files of a Hugging Face directory that a model is read from.

    Raises:
        FileNotFoundError: no such directory, or one without settings or weights.
        ValueError: an index of shards that is damaged.
    """
    folder = Path(path)
    settings = [folder / "config.json", folder / "preprocessor_config.json"]
    read_json(settings[0])
    return [file for file in settings if file.is_file()] + _weight_files(folder)


def _weights(folder: Path) -> dict[str, Tensor]:
    paths = _weight_files(folder)
    state: dict[str, Tensor] = {}
    for path in paths:
        if path.suffix != ".json":
            state.update(_safetensors(path) if path.suffix == ".safetensors" else _bin(path))
    if paths[0].suffix == ".json" and set(state) != set(read_json(paths[0])["weight_map"]):
        raise ValueError(f"{paths[0]} and its shards hold different weights")
    return state


def _weight_files(folder: Path) -> list[Path]:
    """Return the file of the weights, or the index of the shards and the shards."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if index.is_file():
            names = read_json(index).get("weight_map")
            if not isinstance(names, dict):
                raise ValueError(f"{index} has no weight_map")
            shards = sorted(set(map(str, names.values())))
            for shard in shards:
                if Path(shard).name != shard or not (folder / shard).is_file():
                    raise ValueError(f"{index} names {shard!r}, which is not in {folder}")
            return [index, *(folder / shard for shard in shards)]
    raise FileNotFoundError(
        f"{folder} has no weights: neither model.safetensors nor pytorch_model.bin nor their "
        "sharded form"
    )


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise DamagedError(f"{path} is not a whole safetensors file: {error}") from error
    return state


def _bin(path: Path) -> dict[str, Tensor]:
    state = unpickle.read(path)
    for name, value in state.items():
        if not isinstance(value, Tensor):
            what = value.origin if isinstance(value, unpickle.Stub) else type(value).__name__
            raise ValueError(f"{path} is not a state dict: {name!r} is no tensor but {what}")
    return state
