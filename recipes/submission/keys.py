"""Test sets from prepared corpora, to validate a submission without any results.

A task loads the corpus as a probe would; what it would score are the ids that a submission must have,
with what is true of them. The corpora are those of ``mynah prepare``, official ones above all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from mynah.recipes.submission.against import TestSet
from mynah.recipes.submission.layout import PARTS

if TYPE_CHECKING:
    from mynah.recipes.kept import Rows
    from mynah.tasks.core.contract import Split, Task
    from mynah.tasks.corpora.corpus import Corpus

TASKS = tuple(dict.fromkeys(part.task for part in PARTS))
SUITES = (".yaml", ".yml")


def corpora(given: Sequence[str], wanted: Collection[str]) -> dict[str, Path]:
    """Return the prepared corpus of each task that is wanted and served.

    Args:
        given: ``FOLDER`` of a corpus by whose name its tasks are known, ``TASK=FOLDER``, or the
            YAML file of a suite; the later goes before the earlier.
        wanted: tasks.

    Raises:
        FileNotFoundError: no such corpus or suite.
        ValueError: a corpus whose tasks its name does not tell, a task that is not submitted, or
            several corpora of a task in a suite.
    """
    from mynah.recipes.suite import read_suite
    from mynah.tasks.corpora.corpus import Corpus

    found: dict[str, Path] = {}
    for text in given:
        task, mark, folder = text.partition("=")
        if mark and not Path(text).exists():
            if task not in TASKS:
                raise ValueError(
                    f"--keys {text}: there is no task {task!r} in a submission; there are: "
                    f"{', '.join(TASKS)}"
                )
            found[task] = Path(folder)
        elif text.endswith(SUITES):
            for task, folders in read_suite(Path(text)).items():
                if task in wanted and len(folders) != 1:
                    raise ValueError(
                        f"{text} has {len(folders)} corpora for {task}: say which, --keys "
                        f"{task}=FOLDER"
                    )
                found[task] = folders[0]
        else:
            corpus = Corpus.open(text)
            found |= dict.fromkeys(_tasks_of(corpus), Path(text))
    return {task: path for task, path in found.items() if task in wanted}


def _tasks_of(corpus: Corpus) -> list[str]:
    """Return the tasks whose published scores are of a corpus of this name.

    Raises:
        ValueError: there are none.
    """
    from mynah.recipes.published.comparable import CORPORA

    known = {task: CORPORA[task] for task in TASKS}
    tasks = [task for task, names in known.items() if corpus.name in names]
    if not tasks:
        names = ", ".join(sorted({name for some in known.values() for name in some}))
        raise ValueError(
            f"the tasks of {corpus.folder} are not known by its name, {corpus.name}: give "
            f"--keys TASK={corpus.folder}; known are {names}"
        )
    return tasks


def test_set(
    task: str, folder: Path, *, protocol: Literal["superb", "fixed"], lexicon: Path | None
) -> TestSet:
    """Return the test set that a task makes of a prepared corpus.

    Args:
        task: whose.
        folder: of the corpus.
        protocol: of the task; ``superb`` is the leaderboard's.
        lexicon: pronunciations, where the task is ``pr`` and the corpus has no phones.

    Raises:
        FileNotFoundError: no such corpus.
        BadDataError: the corpus cannot serve the task, or has a test part but none to train on.
    """
    from mynah.recipes.errors import BadDataError
    from mynah.recipes.probing.job import load_task
    from mynah.recipes.probing.settings import Settings
    from mynah.tasks.core.splits import part_of
    from mynah.tasks.corpora.corpus import Corpus

    corpus = Corpus.open(folder)
    named = {part_of(u.split) for u in corpus.utterances()}
    if "test" in named and "train" not in named and task != "qbe":
        raise BadDataError(
            f"{folder} has a test part and no train part, without which {task} would make parts of "
            "its own: prepare the whole corpus"
        )
    settings = Settings(protocol=protocol, lexicon=lexicon if task == "pr" else None)
    loaded = load_task(task, settings, corpus)
    data = loaded.loaded
    return TestSet(
        task=task,
        corpus=corpus.name,
        classes=data.classes if loaded.SPEC.resolution == "utterance" else (),
        skipped={**corpus.skipped, **data.skipped},
        rows=_rows(loaded, {fold: test for fold, (_, _, test) in data.folds.items()}),
    )


def _rows(task: Task, tests: dict[str, Split]) -> Rows:
    """Return what is scored of the test parts by fold, as results keep it; nothing is said yet."""
    from mynah.recipes.kept import Rows
    from mynah.tasks.qbe import QueryByExample

    ids: list[str] = []
    folds: list[str] = []
    references: list[str] = []
    said: list[str] = []
    for fold, test in tests.items():
        if task.SPEC.name in ("asv", "qbe"):  # they score trials and queries, not utterances
            size = len(task.searches["test"].documents) if isinstance(task, QueryByExample) else 1
            made = task.rows(test, [np.zeros(size, np.float32) for _ in test.utterances])
            ids += made.ids
            references += made.references
            said += made.predictions
        else:
            ids += [u.id for u in test.utterances]
            references += [task.reference(u) for u in test.utterances]
            said += [""] * len(test.utterances)
        folds += [fold] * (len(ids) - len(folds))
    return Rows(
        ids=tuple(ids),
        folds=tuple(folds),
        units=tuple(ids),
        references=tuple(" ".join(text.split()) for text in references),
        predictions=tuple(said),
    )
