"""KS, SID and PR as s3prl does them: its ``DownstreamExpert``, from padded features to logged scores.

What reads corpora is replaced: the data sets, of which the experts only ask for the number of
classes. Settings are those of s3prl's ``config.yaml`` files (protocol notes 1.1, 1.4, 1.6).

Shape suffixes: T frames, D width.
"""

from __future__ import annotations

import contextlib
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from mynah.recipes.parity.protocol_s3prl import Reference, downstream, replaced
from mynah.upstream.interop import s3prl_hub

if TYPE_CHECKING:
    from mynah.tasks.core.contract import Task
    from mynah.tasks.corpora.utterance import Utterance

PROJECTED = 256
MEAN = {"select": "UtteranceLevel", "UtteranceLevel": {"pooling": "MeanPooling"}}


class _Scalars(dict[str, float]):
    """What an expert logs for TensorBoard, by the last part of its name."""

    def add_scalar(self, tag: str, value: float, **_: object) -> None:
        self[tag.rpartition("-")[2]] = float(value)


class Expert(Reference):
    """A ``DownstreamExpert``, called as s3prl's runner calls it.

    Args:
        expert: built.
        classifier: what its last layer is called.
        label: an utterance's label as s3prl's data set gives it.
        said: name of the record that holds predictions.
        metric: name of the score that it logs.
        names: its name of an answer -> ours, where they differ.
    """

    what = "DownstreamExpert"

    def __init__(
        self,
        expert: nn.Module,
        classifier: str,
        *,
        label: Callable[[Utterance], Any],
        said: str,
        metric: str,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.module = expert
        self.learnt = {
            f"{theirs}.{part}": f"{ours}.{part}"
            for theirs, ours in (("projector", "projector"), (classifier, "classifier"))
            for part in ("weight", "bias")
        }
        self._label, self._said, self._metric, self._names = label, said, metric, names
        self._records: dict[str, list[Any]] = defaultdict(list)

    def loss(self, features: list[Tensor], batch: Sequence[Utterance]) -> Tensor:
        """Return what the expert returns in training."""
        return self._run("train", features, batch, defaultdict(list))

    def answer(self, features: list[Tensor], batch: Sequence[Utterance]) -> None:
        """Let the expert fill its records."""
        self._run("test", features, batch, self._records)

    def _run(
        self, mode: str, features: list[Tensor], batch: Sequence[Utterance], records: Any
    ) -> Tensor:
        labels, names = [self._label(u) for u in batch], [u.id for u in batch]
        loss: Tensor = self.module(mode, features, labels, names, records=records)
        return loss

    def scored(self) -> tuple[list[str], float]:
        """Return the recorded predictions and the logged score."""
        logged, expert = _Scalars(), self.module
        log: Callable[..., Any] = expert.log_records  # type: ignore[assignment]
        with s3prl_hub.quietly():
            log("test", records=self._records, logger=logged, global_step=0)
        said = [str(text) for text in self._records[self._said]]
        return ([self._names[s] for s in said] if self._names else said), logged[self._metric]


@contextlib.contextmanager
def keyword_spotting(task: Task, dim: int, folder: Path) -> Iterator[Reference]:
    """Yield the expert of KS, with this task's classes instead of the twelve."""
    module, classes = downstream("speech_commands.expert"), task.loaded.classes

    def dataset(*_: object, **__: object) -> types.SimpleNamespace:
        return types.SimpleNamespace(class_num=len(classes))

    settings = {
        "datarc": {"speech_commands_root": str(folder)},
        "modelrc": {"projector_dim": PROJECTED, **MEAN},
    }
    with replaced(
        module,
        CLASSES=classes,
        SpeechCommandsDataset=dataset,
        SpeechCommandsTestingDataset=dataset,
    ):
        yield Expert(
            module.DownstreamExpert(dim, settings, str(folder)),
            "model.post_net.linear",
            label=lambda u: classes.index(task.reference(u)),
            said="predict",
            metric="acc",
        )


@contextlib.contextmanager
def speaker_identification(task: Task, dim: int, folder: Path) -> Iterator[Reference]:
    """Yield the expert of SID, with this corpus' speakers instead of VoxCeleb1's."""
    module, classes = downstream("voxceleb1.expert"), task.loaded.classes

    def init(self: Any, *_: object, **__: object) -> None:
        self.speaker_num = len(classes)

    dataset: Any = type("Speakers", (module.SpeakerClassifiDataset,), {"__init__": init})
    settings = {
        "datarc": {"file_path": str(folder), "meta_data": "", "max_timestep": None},
        "modelrc": {"projector_dim": PROJECTED, **MEAN},
    }
    with replaced(module, SpeakerClassifiDataset=dataset):
        yield Expert(
            module.DownstreamExpert(dim, settings, str(folder)),
            "model.post_net.linear",
            label=lambda u: classes.index(task.reference(u)),
            said="predict_speaker",
            metric="acc",
            names=dict(zip(dataset.label2speaker(range(len(classes))), classes, strict=True)),
        )


@contextlib.contextmanager
def phoneme_recognition(task: Task, dim: int, folder: Path) -> Iterator[Reference]:
    """Yield the expert of PR, whose text encoder reads this task's symbols from a file.

    Raises:
        ValueError: another order of the blank, the end and the unknown symbol.
    """
    from mynah.tasks.core.characters import Spelling

    assert isinstance(task, Spelling)
    vocabulary = folder / "phonemes.txt"
    vocabulary.write_text("".join(f"{s}\n" for s in task.symbols[3:]), encoding="utf-8")
    settings = {
        "corpus": {"name": "check"},
        "text": {"mode": "word", "vocab_file": str(vocabulary)},
        "model": {"project_dim": PROJECTED, "select": "FrameLevel", "zero_infinity": True},
        "metric": ["per"],
        "metric_higher_better": False,
    }
    expert: Any = downstream("ctc.expert").DownstreamExpert(dim, None, settings, str(folder))
    encoder = expert.tokenizer
    own = tuple(encoder.idx_to_vocab(i) for i in range(encoder.vocab_size))
    if own != task.symbols:
        raise ValueError(f"s3prl's symbols are {own}, ours {task.symbols}")
    yield Expert(
        expert,
        "model.linear",
        label=lambda u: encoder.encode(task.reference(u)),
        said="hypothesis",
        metric="per",
    )
