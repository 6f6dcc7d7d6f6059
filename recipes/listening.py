"""A trained head and the upstream that it was trained on, at work on any audio.

Shape suffixes: B batch (1 here), L layers, T frames, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from mynah.downstream.core.featurizer import Probe
    from mynah.recipes.probing.trained import HeadCard
    from mynah.tasks.core.contract import Decoded, Presented, Task
    from mynah.tasks.corpora.utterance import Utterance
    from mynah.upstream.core.contract import Upstream

Said = TypeVar("Said")


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A head that can be asked about audio.

    Attributes:
        card: what its file says of it.
        task: ready to decode.
        probe: weighted sum and head.
        upstream: frozen, with the weights that the head was trained on.
    """

    card: HeadCard
    task: Task
    probe: Probe
    upstream: Upstream

    def features(self, utterance: Utterance) -> tuple[Tensor, Tensor]:
        """Return what the head reads of an utterance, and its number of frames.

        Raises:
            BadAudioError: audio that cannot be decoded, holds NaN, or is shorter than a frame.
            ValueError: features that are not finite.
        """
        import torch

        from mynah.recipes.extract import items_of
        from mynah.tasks.corpora.audio import BadAudioError
        from mynah.upstream.store import StreamReader

        if not (heard := self.task.heard([utterance])):
            raise BadAudioError(
                f"{utterance.path}: nothing is left when silences are cut out, as protocol "
                f"{self.card.protocol} has it"
            )
        items = items_of(heard, self.upstream.sample_rate)
        if items[0].num_samples < self.upstream.stride:
            raise BadAudioError(
                f"{utterance.path}: {items[0].num_samples} samples at "
                f"{self.upstream.sample_rate} Hz are less than one frame of "
                f"{self.upstream.stride}"
            )
        reader = StreamReader(self.upstream, items)
        pooled = self.task.SPEC.resolution == "utterance" and not self.card.layer_norm
        found = reader.pooled([utterance.id]) if pooled else reader.padded([utterance.id])
        if not bool(torch.isfinite(found).all()):
            raise ValueError(
                f"{self.card.spec} gives features of {utterance.path} that are NaN or infinite: "
                "check it with 'mynah check upstream'"
            )
        return found, reader.lengths([utterance.id])

    def decoded(self, utterance: Utterance) -> Decoded:
        """Return what the head says of an utterance, decoded as a probe decodes test.

        Frames are in float32 here. A probe reads them as its store kept them, in float16 or int8 where
        they were kept, which a head's file does not say; so a close call may be another.

        Raises:
            BadAudioError: as :meth:`features`, or too few frames for the head.
            ValueError: as :meth:`features`.
            DataError: an utterance that the task cannot decode.
        """
        return self._asked(self.task.infer, utterance)

    def presented(self, utterance: Utterance) -> Presented:
        """Return what the head says of an utterance, for people.

        Raises:
            BadAudioError, ValueError, DataError: as :meth:`decoded`.
        """
        return self._asked(self.task.predict, utterance)

    def _asked(self, says: Callable[..., Sequence[Said]], utterance: Utterance) -> Said:
        import torch

        from mynah.downstream.core.frames import ItemError
        from mynah.tasks.corpora.audio import BadAudioError

        with torch.no_grad():
            features, lengths_B = self.features(utterance)
            try:
                return says(self.probe, features, lengths_B, [utterance])[0]
            except ItemError as error:
                raise BadAudioError(f"{utterance.path}: {error}") from error


def open_listener(
    head: Path,
    *,
    upstream: str | None = None,
    seed: int = 0,
    precision: Literal["fp32", "bf16"] = "fp32",
    device: str = "cpu",
    beside: Listener | None = None,
) -> Listener:
    """Read a trained head and load its upstream.

    Args:
        head: file that ``mynah probe`` wrote.
        upstream: spec of the upstream, where it is no longer what the head's file says.
        seed: of random weights, where the spec has no others.
        precision: of the upstream's forward, part of its identity.
        device: where it runs.
        beside: another listener, whose upstream is used where it is the same.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a trained head, an upstream that cannot be loaded or is another one, or one
            whose spec would execute a file that nobody asked for.
    """
    from mynah.recipes.probing import trained
    from mynah.upstream.core import spec as specs

    card, task, probe = trained.load(head)
    if beside is not None and upstream is None and beside.card.fingerprint == card.fingerprint:
        return Listener(card=card, task=task, probe=probe, upstream=beside.upstream)
    spec = card.spec if upstream is None else upstream
    if upstream is None and spec.startswith("python:"):
        raise ValueError(
            f"{head} was trained on {spec}, which executes that file: if you trust it, say "
            f"--upstream {spec}"
        )
    try:
        model = specs.load(spec, precision=precision, device=device, seed=seed)
    except (ValueError, LookupError, FileNotFoundError) as error:
        if upstream is not None:
            raise
        raise ValueError(
            f"{head} was trained on {spec}, which cannot be loaded here: "
            f"{error.args[0] if error.args else error}; say where it is with --upstream SPEC"
        ) from error
    found = model.fingerprint()
    if found != card.fingerprint:
        raise ValueError(
            f"{head} was trained on {card.spec} with fingerprint {card.fingerprint[:12]}, and "
            f"{spec} (seed {seed}, {precision}) has {found[:12]}: the head means nothing on "
            "another upstream; give the one it was trained on with --upstream, --upstream-seed, "
            "--precision"
        )
    return Listener(card=card, task=task, probe=probe, upstream=model)


def utterance_of(path: Path, *, name: str, channel: int | None = None) -> Utterance:
    """Return a whole audio file as an utterance.

    Args:
        path: of the file.
        name: id of the utterance.
        channel: which, from 0; may be left out where there is one.

    Raises:
        BadAudioError: not readable as audio, or several channels and none chosen.
    """
    from mynah.tasks.corpora.audio import BadAudioError, probe
    from mynah.tasks.corpora.utterance import Utterance

    info = probe(path)
    if channel is None and info.channels > 1:
        raise BadAudioError(
            f"{path}: {info.channels} channels: say which, --channel 0 is the first"
        )
    return Utterance(
        id=name,
        path=str(path),
        start=0.0,
        duration=info.duration,
        sample_rate=info.sample_rate,
        channel=channel or 0,
    )
