"""torchaudio's wav2vec 2.0, HuBERT and WavLM: ``torchaudio:<factory>[,ckpt=<file>]``.

The factories of ``torchaudio.models`` that build a ``Wav2Vec2Model`` (``wav2vec2_base``,
``hubert_large``, ``wavlm_base`` ...), with random weights or those of a state dict (safetensors,
or a ``.pt`` file that ``torch.load`` reads without executing anything).

Hidden states as SUPERB counts them, which is not what torchaudio's ``extract_features`` returns:
the input of the first layer is the first state, and where the layers normalise first (the large
models) the last state is taken after the final normalisation. Whole-utterance normalisation of the
waveform, which torchaudio leaves to the caller, is on for the models that were trained with it.

:func:`load` runs it one utterance at a time, by torchaudio's own code: an independent second opinion
about our own classes. :func:`convert` gives our own class with the same weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah import registry
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.single import SingleUtterance
from mynah.upstream.interop import families
from mynah.upstream.interop.settings import is_normalised

__all__ = ["convert", "factories", "is_normalised", "load", "load_weights", "wrap"]


def factories() -> list[str]:
    """Return the names of torchaudio's factories that need no argument and fit."""
    import torchaudio.models

    names = []
    for name, value in vars(torchaudio.models).items():
        if inspect.isfunction(value) and name.startswith(("wav2vec2_", "hubert_", "wavlm_")):
            parameters = inspect.signature(value).parameters.values()
            if "pretrain" not in name and all(p.default is not p.empty for p in parameters):
                names.append(name)
    return sorted(names)


def load(spec: str) -> Upstream:
    """Return a torchaudio model as an upstream.

    Args:
        spec: ``<factory>`` or ``<factory>,ckpt=<file>``.

    Raises:
        LookupError: unknown factory.
        ValueError: a checkpoint that does not fit, or an option that does not exist.
        FileNotFoundError: no such checkpoint.
    """
    name, model = build(spec)
    return wrap(model, name=f"torchaudio:{name}", normalise=is_normalised(name))


def convert(spec: str) -> Upstream | None:
    """Return a torchaudio model as our own class, None where we have no such family.

    Raises:
        LookupError, ValueError, FileNotFoundError: as :func:`load`.
    """
    name, model = build(spec)
    return families.from_torchaudio(model, name)


def build(spec: str) -> tuple[str, nn.Module]:
    """Return the name of the factory and the model that it builds, with its weights if given.

    Raises:
        LookupError, ValueError, FileNotFoundError: as :func:`load`.
    """
    import torchaudio

    name, *options = spec.split(",")
    if name not in factories():
        raise LookupError(registry.unknown("torchaudio factory", name, factories()))
    factory: Callable[..., nn.Module] = getattr(torchaudio.models, name)
    checkpoints = []
    for option in options:
        key, _, value = option.partition("=")
        if key != "ckpt" or not value:
            raise ValueError(f"unknown option {option!r}: torchaudio:{name} takes ckpt=<file>")
        checkpoints.append(Path(value))
    model = factory()
    for path in checkpoints:
        load_weights(model, path)
    return name, model


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy a state dict into a model, all keys or none; executes nothing.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a state dict that can be read safely, or one that does not fit.
    """
    import pickle

    if not path.is_file():
        raise FileNotFoundError(f"no such checkpoint: {path}")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    else:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
            raise ValueError(
                f"{path} is not a state dict that can be read without executing it; save "
                "model.state_dict() with safetensors.torch.save_file where you trust the file"
            ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path} does not hold a state dict (name -> tensor)")
    aux = [key for key in state if key.startswith("aux.")]  # the letters of a fine-tuned model
    state = {key: value for key, value in state.items() if key not in aux}
    shapes = {key: str(tuple(value.shape)) for key, value in model.state_dict().items()}
    given = {key: str(tuple(value.shape)) for key, value in state.items()}
    difference = modelfolder.diff(shapes, given)
    if difference:
        raise ValueError(f"{path} does not fit: {difference}")
    model.load_state_dict(state)


def wrap(model: nn.Module, *, name: str, normalise: bool) -> Upstream:
    """Return a ``torchaudio.models.Wav2Vec2Model`` as an upstream.

    Args:
        model: as built by a factory, with whatever weights.
        name: what it is called in tables.
        normalise: whether each waveform is first brought to mean 0 and variance 1.
    """
    import torchaudio

    convolutions = [
        (int(layer.conv.kernel_size[0]), int(layer.conv.stride[0]))
        for layer in model.feature_extractor.conv_layers  # type: ignore[union-attr]
    ]

    def count(n_samples: int) -> int:
        for kernel, step in convolutions:
            n_samples = max(0, (n_samples - kernel) // step + 1)
        return n_samples

    def states(module: nn.Module, wav_1S: Tensor) -> Sequence[Tensor]:
        if normalise:
            wav_1S = F.layer_norm(wav_1S, wav_1S.shape[1:], eps=1e-5)
        return superb_states(module, wav_1S)

    stride = 1
    for _, step in convolutions:
        stride *= step
    return SingleUtterance(
        model,
        name=name,
        stride=stride,
        identity=f"torchaudio {torchaudio.__version__}, normalise {normalise}",
        states=states,
        count=count,
    )


def superb_states(model: Any, wav_1S: Tensor) -> list[Tensor]:
    """Return the L + 1 hidden states (1, T, D) of a torchaudio model as SUPERB counts them.

    The first is what enters the first layer; where the layers normalise first, the last is taken
    after the final normalisation.
    """
    x_1TC, _ = model.feature_extractor(wav_1S, None)
    transformer = model.encoder.transformer
    x_1TD = transformer._preprocess(model.encoder.feature_projection(x_1TC))
    states = [x_1TD]
    position_bias = None
    for layer in transformer.layers:
        x_1TD, position_bias = layer(x_1TD, None, position_bias=position_bias)
        states.append(x_1TD)
    # torchaudio's name for its post-norm arrangement; the final norm belongs to the other one
    if not transformer.layer_norm_first:
        states[-1] = transformer.layer_norm(states[-1])
    return states
