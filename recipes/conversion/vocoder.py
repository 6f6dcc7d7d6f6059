"""Vocoders by name, run or checkpoint, as commands name them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mynah.downstream.core.melspec import MelSpec, require_same
from mynah.downstream.vocoders.core.contract import Vocoder


def default_vocoder() -> str:
    """Return ``world`` where pyworld is installed, else ``griffin_lim``."""
    from mynah.downstream.vocoders.core.prosody import has_world

    return "world" if has_world() else "griffin_lim"


def open_vocoder(
    name: str, spec: MelSpec | None = None, *, beside: str = "the converter"
) -> Vocoder:
    """Return a vocoder.

    Args:
        name: of a vocoder that needs no training, a run or model folder of ``mynah pretrain
            vocoder/...``, or somebody else's checkpoint (``core/foreign.py``).
        spec: of the spectrograms that it will be given; default: a trained one's own, the usual one
            for others.
        beside: who makes those spectrograms, for the message.

    Raises:
        LookupError: an unknown name.
        FileNotFoundError: no such folder or file.
        ValueError: it cannot work here (a package or weights are missing), or takes other
            spectrograms.
    """
    from mynah import registry
    from mynah.downstream import vocoders

    if name in vocoders.available():
        kind: Any = vocoders.get(name).VOCODER  # each has settings of its own
        if kind.trained:
            raise ValueError(
                f"{name} has weights to learn: train it (mynah pretrain vocoder/{name}-tiny --corpus "
                "DIR --out RUN) and name the run, or name a folder with a checkpoint"
            )
        vocoder: Vocoder = kind(spec or MelSpec())
        return vocoder
    path = Path(name)
    if not path.exists() and path.name == name:
        raise LookupError(
            registry.unknown("vocoder", name, vocoders.available())
            + " Or name a run, a folder or a file."
        )
    vocoder = read_vocoder(path)
    if spec is not None:
        require_same(vocoder.spec, spec, names=(f"the vocoder {path.name}", beside))
    return vocoder


def read_vocoder(path: Path) -> Vocoder:
    """Return the vocoder of a run, a model folder or somebody else's checkpoint.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: no vocoder, or one that is not whole.
    """
    from mynah.downstream.vocoders.core import foreign
    from mynah.recipes.conversion import families
    from mynah.upstream.core import modelfolder
    from mynah.upstream.core.spec import newest

    families.register()

    if not path.exists():
        raise FileNotFoundError(f"no such vocoder: {path}")
    ours = (modelfolder.WEIGHTS, "final", "checkpoints")
    if path.is_file() or not any((path / part).exists() for part in ours):
        return foreign.read(path)
    return _ours(newest(path))


def _ours(folder: Path) -> Vocoder:
    """Return the vocoder of a model folder; the discriminators beside it are not read."""
    from safetensors import safe_open

    from mynah.downstream import vocoders
    from mynah.recipes.conversion import vocoder_trainee
    from mynah.upstream.core import modelfolder

    head = modelfolder.verify(folder)
    if head["upstream"] != vocoder_trainee.MODEL.name:
        raise ValueError(f"{folder} holds a model of {head['upstream']}, not a vocoder")
    where = folder / modelfolder.CONFIG
    kind = vocoder_trainee.config_type(head["config"])
    config = modelfolder.config_from(kind, head["config"], where=where)
    module = vocoders.get(config.vocoder)
    generator = module.GENERATOR(config, config.mel)
    prefix = "generator."
    with safe_open(folder / modelfolder.WEIGHTS, framework="pt") as file:
        names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118  not a dict
        state = {key.removeprefix(prefix): file.get_tensor(key) for key in names}
    wanted = {key: str(tuple(value.shape)) for key, value in generator.state_dict().items()}
    given = {key: str(tuple(value.shape)) for key, value in state.items()}
    if difference := modelfolder.diff(wanted, given):
        raise ValueError(f"{folder / modelfolder.WEIGHTS} does not fit its config: {difference}")
    generator.load_state_dict(state)
    vocoder: Vocoder = module.VOCODER(generator, digest=head["sha256"])
    return vocoder
