"""s3prl: its checkpoints as our models, and any upstream of its hub as a wrapped one.

``s3prl:<file>``
    An APC or Mockingjay-family (Mockingjay, TERA, AudioALBERT) checkpoint that s3prl wrote, as our
    own class: batched, packed, trainable.
``s3prl:<hub name>[,ckpt=<file>]``
    Any upstream of ``s3prl.hub`` (``fbank``, ``apc_local``, ``wav2vec2_custom`` ...), run by
    s3prl's own code one utterance at a time, so that neighbours cannot matter. Names that take no
    file download their published weights into s3prl's cache.

A checkpoint is read by :mod:`mynah.upstream.interop.unpickle`, which executes nothing; while s3prl
builds a model, its calls of ``torch.load`` get the same treatment.

s3prl 0.4.18 was written for older versions of torchaudio and Python: :func:`ensure_importable`
supplies the three names that it misses.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.metadata
import io
import logging
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mynah import registry
from mynah.upstream.core import modelfolder
from mynah.upstream.core.contract import Upstream
from mynah.upstream.core.single import SingleUtterance
from mynah.upstream.interop import unpickle

logger = logging.getLogger(__name__)

VERIFIED = (400, 401, 559, 560, 561, 719, 720, 721, 1600, 15999, 16000, 16001, 16079, 16080, 40007)


def load(spec: str) -> Upstream:
    """Return what ``s3prl:<spec>`` names; see the top of this module.

    Raises:
        FileNotFoundError: no such checkpoint.
        LookupError: neither a file nor a name of s3prl's hub.
        ValueError: a checkpoint that cannot be read safely or does not fit, an unknown option, or
            an upstream without hidden states of one shape.
        OSError: a download failed.
    """
    name, *options = spec.split(",")
    if Path(name).is_file():
        if options:
            raise ValueError(f"s3prl:<file> takes no options, got {options[0]!r}")
        return convert(name)
    checkpoint: Path | None = None
    for option in options:
        key, _, value = option.partition("=")
        if key != "ckpt" or not value:
            raise ValueError(f"unknown option {option!r}: s3prl:{name} takes ckpt=<file>")
        checkpoint = Path(value)
        if not checkpoint.is_file():
            raise FileNotFoundError(f"no such checkpoint: {checkpoint}")
    return wrap(name, checkpoint=checkpoint)


# -- checkpoints as our own models ------------------------------------------------------------


def convert(path: str | Path) -> Upstream:
    """Return an APC or Mockingjay-family checkpoint as our own model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a checkpoint, a setting that our model does not have, or weights that
            do not fit.
    """
    content = plain(unpickle.read(path))
    if "Transformer" in content:
        return _mockingjay(content, path)
    if "model" in content and "paras" in _at(content, "config", "model"):
        return _apc(content, path)
    raise ValueError(
        f"{path} is neither an APC nor a Mockingjay-family checkpoint of s3prl (it has "
        f"{', '.join(map(str, content))}); others run as s3prl:<hub name>,ckpt={path}"
    )


def _apc(content: Mapping[str, Any], path: str | Path) -> Upstream:
    from mynah.upstream.apc import Apc, Config

    paras, audio = _at(content, "config", "model", "paras"), _at(content, "config", "data", "audio")
    _require(
        path,
        {**audio, **paras},
        feat_type="fbank",
        frame_length=25,
        frame_shift=10,
        cmvn=True,
        residual=True,
        vq=None,
    )
    config = Config(
        num_mels=int(audio["feat_dim"]),
        width=int(paras["hidden_size"]),
        layers=int(paras["num_layers"]),
        dropout=float(paras["dropout"]),
        shift=int(_at(content, "config", "task").get("n_future", Config.shift)),
        loss_over_padding=True,
    )
    model = Apc(config)
    return _fill(model, content["model"], apc_key, path)


def _mockingjay(content: Mapping[str, Any], path: str | Path) -> Upstream:
    from mynah.upstream.mockingjay import Config, Mockingjay

    settings = _at(content, "Config")
    if "transformer" not in settings:
        settings = _at(content, "Upstream_Config")
    net, audio, task = (_at(settings, key) for key in ("transformer", "audio", "task"))
    source = _at(audio, "input")
    target = _at(audio, "target") or source
    _require(path, net, hidden_act="gelu", pre_layer_norm=False, initializer_range=0.02)
    _require(path, audio, win_ms=25, hop_ms=10, n_freq=201, target_level=-25, sample_rate=16000)
    _require(path, source, feat_type="mel", log=True, cmvn=True, delta=0)
    _require(path, target, feat_type=("mel", "linear"), log=True, cmvn=True, delta=0)
    length = int(task.get("mask_consecutive_max", Config.mask_length))
    config = Config(
        num_mels=int(audio["n_mels"]),
        target=target["feat_type"],
        dim=int(net["hidden_size"]),
        layers=int(net["num_hidden_layers"]),
        heads=int(net["num_attention_heads"]),
        ffn=int(net["intermediate_size"]),
        norm_eps=float(net["layer_norm_eps"]),
        dropout=float(net["hidden_dropout_prob"]),
        attention_dropout=float(net["attention_probs_dropout_prob"]),
        mask_prob=float(task.get("mask_proportion", Config.mask_prob)),
        mask_length=length,
        max_frames=int(task.get("sequence_length") or 24000),  # 24000: rows of its position table
    )
    weights = {f"Transformer.{key}": value for key, value in content["Transformer"].items()}
    weights.update({f"SpecHead.{key}": value for key, value in content["SpecHead"].items()})
    weights = {
        key.replace("gamma", "weight").replace("beta", "bias"): value
        for key, value in weights.items()
    }
    return _fill(Mockingjay(config), weights, mockingjay_key, path)


def apc_key(key: str) -> str:
    """Return s3prl's name of one of our APC's weights."""
    return key.replace("layers.", "rnn_layers.").replace("predict.", "postnet.")


_MOCKINGJAY = {
    "proj": "Transformer.input_representations.spec_transform",
    "encoder.norm": "Transformer.input_representations.LayerNorm",
    "head.0": "SpecHead.dense",
    "head.2": "SpecHead.LayerNorm",
    "head.3": "SpecHead.output",
    "attn.q": "attention.self.query",
    "attn.k": "attention.self.key",
    "attn.v": "attention.self.value",
    "attn.o": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "ff1": "intermediate.dense",
    "ff2": "output.dense",
    "norm2": "output.LayerNorm",
}


def mockingjay_key(key: str) -> str:
    """Return s3prl's name of one of our Mockingjay's weights, with the part it belongs to."""
    part, _, leaf = key.rpartition(".")
    if part in _MOCKINGJAY:
        return f"{_MOCKINGJAY[part]}.{leaf}"
    _, _, layer, inner = part.split(".", 3)
    return f"Transformer.encoder.layer.{layer}.{_MOCKINGJAY[inner]}.{leaf}"


def _fill(
    model: Upstream, state: Mapping[str, Tensor], name: Callable[[str], str], path: str | Path
) -> Upstream:
    own = model.state_dict()
    difference = modelfolder.diff(
        {name(key): str(tuple(value.shape)) for key, value in own.items()},
        {key: str(tuple(value.shape)) for key, value in state.items()},
    )
    if difference:
        raise ValueError(f"{path} does not fit {model.name}: {difference}")
    model.load_state_dict({key: state[name(key)].float() for key in own})
    return model


def _at(content: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Return a nested dictionary, empty where it is missing."""
    for key in keys:
        content = content.get(key) or {}
        if not isinstance(content, Mapping):
            return {}
    return dict(content)


def _require(path: str | Path, settings: Mapping[str, Any], **wanted: Any) -> None:
    """Refuse settings that differ from what our model does; missing ones pass."""
    for key, value in wanted.items():
        allowed = value if isinstance(value, tuple) else (value,)
        if key in settings and settings[key] not in allowed:
            raise ValueError(
                f"{path} was trained with {key}={settings[key]!r}; ours knows "
                f"{' or '.join(map(repr, allowed))} only. s3prl can run it: "
                f"s3prl:<hub name>,ckpt={path}"
            )


# -- any upstream of the hub ------------------------------------------------------------------


def ensure_importable() -> None:
    """Supply what s3prl 0.4.18 misses in torchaudio >= 2.9 and Python >= 3.12; idempotent.

    ``torchaudio.set_audio_backend`` and ``torchaudio.sox_effects`` were removed, and so was the
    standard library's ``distutils``. None of the three is used by an upstream's forward.
    """
    import torchaudio

    if not hasattr(torchaudio, "set_audio_backend"):
        torchaudio.set_audio_backend = lambda *_args, **_options: None
    if not hasattr(torchaudio, "sox_effects"):
        effects = types.ModuleType("torchaudio.sox_effects")

        def apply_effects_tensor(*_args: Any, **_options: Any) -> None:
            raise NotImplementedError("torchaudio has no sox effects any more (removed in 2.9)")

        effects.__dict__["apply_effects_tensor"] = apply_effects_tensor
        sys.modules["torchaudio.sox_effects"] = effects
        torchaudio.sox_effects = effects
    try:
        importlib.import_module("distutils.util")
    except ImportError:
        package, util = types.ModuleType("distutils"), types.ModuleType("distutils.util")
        truths = {"y": 1, "yes": 1, "t": 1, "true": 1, "on": 1, "1": 1}
        util.__dict__["strtobool"] = lambda text: truths.get(str(text).lower(), 0)
        package.__dict__["util"] = util
        sys.modules.update({"distutils": package, "distutils.util": util})


def hub() -> types.ModuleType:
    """Import and return ``s3prl.hub`` (seconds)."""
    ensure_importable()
    with _quietly():
        return importlib.import_module("s3prl.hub")


def wrap(name: str, *, checkpoint: Path | None = None) -> Upstream:
    """Return an upstream of s3prl's hub, run by s3prl one utterance at a time.

    Args:
        name: an entry of ``s3prl.hub``.
        checkpoint: the file it is built from, where it takes one.

    Raises:
        LookupError: unknown name.
        ValueError: a checkpoint that cannot be read safely, or no uniform hidden states.
        OSError: a download failed.
    """
    module = hub()
    if name not in module.options():
        raise LookupError(registry.unknown("s3prl upstream", name, module.options()))
    if checkpoint is None and name.endswith(("_local", "_custom")):
        raise ValueError(f"s3prl:{name} needs a checkpoint: s3prl:{name},ckpt=<file>")
    arguments = {} if checkpoint is None else {"ckpt": str(checkpoint)}
    try:
        with _reading_safely(), _quietly():
            expert: nn.Module = getattr(module, name)(**arguments)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(
            f"s3prl:{name} downloads its published weights and could not ({error}); with a local "
            "file use the entry of the family that ends in _local or _custom and ,ckpt=<file>"
        ) from error
    stride = int(expert.get_downsample_rates("hidden_states"))  # type: ignore[operator]
    digest = hashlib.sha256(checkpoint.read_bytes()).hexdigest() if checkpoint else ""
    return Wrapped(
        expert.eval(),
        name=f"s3prl:{name}",
        stride=stride,
        identity=f"s3prl {importlib.metadata.version('s3prl')} {digest}".strip(),
        states=_states,
    )


class Wrapped(SingleUtterance):
    """An s3prl upstream, one utterance at a time.

    The number of frames of s3prl's upstreams is floor((n - a) / stride) + b. ``a`` and ``b`` are
    found by running the model on silence, and the formula is compared with the model at lengths
    around every kind of edge; a model that it does not describe is asked anew for each length.
    Every utterance is checked against what was promised.
    """

    def __init__(self, module: nn.Module, **options: Any) -> None:
        super().__init__(module, **options)
        self._count = self._formula()

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the states (N, D).

        Raises:
            RuntimeError: the model yields another number of frames than it did for silence.
        """
        promised = sum(self.num_frames(len(wav)) for wav in wavs)
        for states_ND in super().hidden_states(wavs):
            if len(states_ND) != promised:
                raise RuntimeError(
                    f"{self.config.name} yields {len(states_ND)} frames where silence of the same "
                    f"lengths yields {promised}: its number of frames depends on the audio"
                )
            yield states_ND

    def _formula(self) -> Callable[[int], int] | None:
        low = max(16000, self._shortest)
        base = self._frames(low)
        high = low + 2 * self.stride
        while high - low > 1:  # the first length with more frames than 16000 samples have
            middle = (low + high) // 2
            low, high = (middle, high) if self._frames(middle) == base else (low, middle)
        edge, stride, shortest = high, self.stride, self._shortest

        def count(n_samples: int) -> int:
            return 0 if n_samples < shortest else base + 1 + (n_samples - edge) // stride

        lengths = [n for n in VERIFIED if n >= shortest] + [shortest, shortest + 1]
        return count if all(count(n) == self._frames(n) for n in lengths) else None


def _states(module: nn.Module, wav_1S: Tensor) -> Sequence[Tensor]:
    with _quietly():
        states: list[Tensor] = list(module([wav_1S[0]])["hidden_states"])
    shortest = min(state.shape[1] for state in states)  # its even-length padding shows in hooks
    return [state[:, :shortest] for state in states]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Send what s3prl prints to the log, and drop its warnings."""
    said = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        warnings.simplefilter("ignore")
        yield
    if said.getvalue():
        logger.debug("s3prl: %s", said.getvalue().strip())


@contextlib.contextmanager
def _reading_safely() -> Iterator[None]:
    """Let every ``torch.load`` inside read plain values and tensors only."""
    original = torch.load
    name = "load"

    def safely(file: Any, *_args: Any, **_options: Any) -> Any:
        if not isinstance(file, str | os.PathLike):
            raise ValueError(f"a checkpoint is read from a file, got {type(file).__name__}")
        setattr(torch, name, original)  # which the restricted reader itself builds on
        try:
            return plain(unpickle.read(Path(file)))
        finally:
            setattr(torch, name, safely)

    setattr(torch, name, safely)
    try:
        yield
    finally:
        setattr(torch, name, original)


def plain(value: Any) -> Any:
    """Return a checkpoint's content without the objects whose classes were not imported.

    Tensors, scalars and containers stay; an ``argparse.Namespace`` becomes one again; anything
    else that is no config becomes None.
    """
    if isinstance(value, unpickle.Stub):
        if value.origin == "argparse.Namespace" and isinstance(value.state, dict):
            return argparse.Namespace(**{str(k): plain(v) for k, v in value.state.items()})
        return unpickle.plain(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value) if type(value) in (list, tuple) else None
    return value
