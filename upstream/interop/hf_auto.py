"""A Hugging Face speech model that is none of our families, run by ``transformers``' own code.

One utterance at a time, with the model's own feature extractor, so that neighbours and padding
cannot matter. Nothing is fetched and no code that comes with a model is run. Encoders of
encoder-decoder models are taken alone.

Hidden states as SUPERB counts them: those that the model lists, the last one after the final layer
norm (``last_hidden_state``), which some models leave out of their list.
"""

from __future__ import annotations

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mynah.upstream.core.contract import Upstream
from mynah.upstream.interop.settings import normalizes
from mynah.upstream.interop.wrapped import Wrapped

# weights that features do not need; models saved without them are whole
_OPTIONAL = ("masked_spec_embed",)
_SECONDS = (2, 4)  # of silence, whose numbers of frames give the stride


def known(kind: object) -> bool:
    """Return whether ``transformers`` has a model of this type that hears waveforms.

    Raises:
        ValueError: ``transformers`` is not installed.
    """
    try:
        from transformers.models.auto.feature_extraction_auto import (
            FEATURE_EXTRACTOR_MAPPING_NAMES,
        )
        from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
    except ImportError as error:
        raise ValueError(
            f"a model of type {kind!r} is run by transformers, which is not installed: "
            "pip install 'mynah[hf]'"
        ) from error
    return kind in FEATURE_EXTRACTOR_MAPPING_NAMES and kind in MODEL_MAPPING_NAMES


def wrap(folder: Path, settings: Mapping[str, Any]) -> Upstream:
    """Return the model in a Hugging Face directory, run one utterance at a time.

    Args:
        folder: the directory.
        settings: contents of its ``config.json``, of a type that :func:`known` accepts.

    Raises:
        ValueError: weights that are missing or do not fit, code that would have to be run, or a
            model without frames.
    """
    import transformers

    try:
        with quietly():
            model, report = transformers.AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, RuntimeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} cannot be read by transformers: {error}") from error
    missing = sorted(k for k in report["missing_keys"] if not k.endswith(_OPTIONAL))
    if missing:
        raise ValueError(f"{folder} is not a whole model: {len(missing)} missing: {missing[0]} ...")
    if model.config.is_encoder_decoder:
        model = model.get_encoder()
    ear = _Ear(folder, settings)
    model = model.eval()
    try:
        stride = _stride(model, ear)
    except ValueError as error:
        raise ValueError(
            f"{folder} holds a model of type {settings.get('model_type')!r}, which cannot be used: "
            f"{error}. What can is a model that takes waveforms of any length and gives a state for "
            "each stretch of time, as wav2vec2, hubert, wavlm and data2vec-audio do"
        ) from error
    return Wrapped(
        model,
        name=f"hf:{folder.resolve().name}",
        stride=stride,
        sample_rate=ear.sample_rate,
        identity=f"transformers {transformers.__version__} {ear.identity}",
        states=ear.states,
    )


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Let ``transformers`` draw no progress bars and warn of nothing inside."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class _Ear:
    """Turns waveforms into a model's input by its own feature extractor, and asks it."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import transformers

        file = folder / "preprocessor_config.json"
        if file.is_file():
            self.extractor = transformers.AutoFeatureExtractor.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        else:
            self.extractor = transformers.Wav2Vec2FeatureExtractor(
                do_normalize=normalizes(folder, settings)
            )
        self.sample_rate = int(self.extractor.sampling_rate)
        text = self.extractor.to_json_string()
        self.identity = hashlib.sha256(text.encode()).hexdigest()

    def states(self, module: nn.Module, wav_1S: Tensor) -> Sequence[Tensor]:
        """Return the hidden states, each (1, T, D).

        Raises:
            ValueError: too short for the extractor: it gives nothing, or the variance of one frame.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            inputs = self.extractor(
                wav_1S[0].cpu().numpy(), sampling_rate=self.sample_rate, return_tensors="pt"
            )
        if not all(bool(value.isfinite().all()) for value in inputs.values()):
            raise ValueError(f"{wav_1S.shape[1]} samples are too short for the feature extractor")
        out = module(**inputs.to(wav_1S.device), output_hidden_states=True)
        states = list(out.hidden_states or ())
        last = out.last_hidden_state
        if states and states[-1].shape == last.shape:
            states[-1] = last
        return states or [last]


def _stride(model: nn.Module, ear: _Ear) -> int:
    """Return samples per frame, from the numbers of frames of two stretches of silence.

    Raises:
        ValueError: the model takes something else than a waveform, or has no frames.
    """
    kind = type(model).__name__
    takes, given = getattr(model, "main_input_name", None), ear.extractor.model_input_names
    if takes is not None and takes not in given:
        raise ValueError(
            f"its {kind} takes {takes}, and preprocessor_config.json, which would say how they are "
            f"made, is missing or makes {', '.join(given)}"
        )
    frames = []
    with torch.no_grad():
        for seconds in _SECONDS:
            silence = torch.zeros(1, seconds * ear.sample_rate)
            try:
                frames.append(ear.states(model, silence)[0].shape[1])
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
                raise ValueError(f"its {kind} gives no states of a waveform: {error}") from error
    more = frames[1] - frames[0]
    if more <= 0:
        raise ValueError(
            f"its {kind} yields {frames[0]} frames of {_SECONDS[0]} s and {frames[1]} of "
            f"{_SECONDS[1]} s"
        )
    return round((_SECONDS[1] - _SECONDS[0]) * ear.sample_rate / more)
