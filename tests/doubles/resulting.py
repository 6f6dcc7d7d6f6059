"""Results with their predictions, written without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mynah import files, tasks
from mynah.recipes import kept, results
from mynah.tasks.metrics.bootstrap import bootstrap
from mynah.tasks.metrics.metric import Measure

Table = list[tuple[str, str, str]]
"""(unit, reference, prediction) of each row."""


def write(
    folder: Path,
    task: str,
    table: Table,
    metrics: list[str],
    signatures: dict[str, str],
    *,
    upstream: str = "apc",
    seed: int = 0,
    scale: float = 100.0,
    unit: str = "speaker",
    folds: Sequence[str] | None = None,
    **more: Any,
) -> Path:
    """Write a result and its predictions; values and intervals are those of its own metrics."""
    units, references, predictions = (list(column) for column in zip(*table, strict=True))
    ids = tuple(f"u{i}" for i in range(len(table)))
    of_fold = tuple(folds or ("",) * len(table))
    rows = kept.Rows(
        ids=ids,
        folds=of_fold,
        units=tuple(units),
        references=tuple(references),
        predictions=tuple(predictions),
    )
    known = tasks.get(task).TASK
    superb = more.get("protocol") == "superb"
    fields: dict[str, Any] = {
        "upstream": upstream, "spec": upstream, "fingerprint": "f", "upstream_params": 10,
        "task": task, "task_version": known.SPEC.version, "protocol": "fixed", "corpus": "mini",
        "corpus_version": "0123456789abcdef", "seed": seed, "metric": metrics[0],
        "choices": [], "sweep": [], "layer_weights": [1.0], "n_train": 5, "n_dev": 5,
        "n_test": len(table), "head_params": 3, "steps": 5, "passes": 1.0, "features": "pooled",
        "forwards": 20, "costs": {}, "environment": {}, "command": "x", "predictions": "",
        "settings": {"steps": str(known.PROTOCOLS["superb"].steps) if superb else "5"},
    }  # fmt: skip
    draft = results.Result.model_construct(
        **fields,
        metrics={name: results.Metric(value=0, low=0, high=0, n=1, units=1, unit=unit, signature=signatures[name]) for name in metrics},
    )  # fmt: skip
    made: dict[str, Any] = {}
    for name in metrics:
        measure: Measure = kept.measure_of(draft, name, rows)
        found = bootstrap(measure, references, predictions, units, unit=unit, folds=of_fold)
        made[name] = {**vars(found), "scale": scale}
        made[name]["signature"] = signatures[name] + f"|ci:{found.unit}-bootstrap-1000"
        fields["higher_is_better"] = measure.higher_is_better
    first = kept.measure_of(draft, metrics[0], rows)
    fields |= {"metrics": made, "higher_is_better": first.higher_is_better, **more}
    file = results.path_of(folder, upstream=upstream, task=task, protocol=fields["protocol"],
                           corpus=fields["corpus"], seed=seed, settings=fields["settings"])  # fmt: skip
    fields["predictions"] = file.with_suffix(".tsv").name
    path = results.save(results.Result.model_validate(fields), folder)
    lines = ["\t".join(kept.COLUMNS)]
    lines += [
        "\t".join((i, f, u, r, p)) for i, f, (u, r, p) in zip(ids, of_fold, table, strict=True)
    ]
    files.write_text(path.with_suffix(".tsv"), "\n".join(lines) + "\n")
    return path


def words(wrong: int, *, speakers: int = 8, each: int = 5) -> Table:
    """Return utterances of two classes, of which the first ``wrong`` of each speaker are wrong."""
    return [
        (f"s{s}", "yes" if i % 2 else "no", ("yes" if i % 2 else "no") if i >= wrong else "?")
        for s in range(speakers)
        for i in range(each)
    ]


ACCURACY = {"accuracy": "accuracy|average:micro|folds:pooled|v1"}
PER = {"per": "per|norm:none|unit:phone|v1"}
PHONES: Table = [(f"s{i % 6}", "A B C D", "A B C D" if i % 3 else "A X C") for i in range(18)]


def perfect(folder: Path, **more: Any) -> None:
    """Write a model that makes no mistake on any task of the paper's view."""
    right = words(0)
    options: dict[str, Any] = {"upstream": "perfect", "protocol": "superb", **more}
    for task in ("ks", "ic", "sid", "er"):
        write(folder, task, right, ["accuracy"], ACCURACY, **options)
    text: Table = [(f"s{i % 6}", "A B C", "A B C") for i in range(12)]
    write(folder, "pr", text, ["per"], PER, **options)
    write(folder, "asr", text, ["wer"], {"wer": "wer|norm:upper|unit:word|v1"}, **options)
    trials: Table = [
        (f"t{i}", "target" if i % 2 else "nontarget", str(float(i % 2))) for i in range(20)
    ]
    write(folder, "asv", trials, ["eer"], {"eer": "eer|curve:linear|ties:together|v1"}, **options)
    query: Table = [(f"q{i}", "d1", "d1:1.0 d2:-1.0 d3:-2.0") for i in range(6)]
    sign = "mtwv|beta:12.49|default:-10|queries-without-target:left-out|v1"
    write(folder, "qbe", _encoded(query), ["mtwv"], {"mtwv": sign}, unit="query", **options)
    slots: Table = [(f"s{i % 6}", "city: PARIS", "city: PARIS") for i in range(12)]
    names = {n: f"{n}|v1" for n in ("slot_type_f1", "slot_value_cer")}
    write(folder, "sf", _slots(slots), ["slot_type_f1", "slot_value_cer"], names, **options)
    turns: Table = [(f"r{i}", "", "") for i in range(6)]
    write(
        folder, "sd", _turns(turns), ["der"], {"der": "der|collar:0.00|overlap:yes|v1"}, **options
    )


def _encoded(table: Table) -> Table:
    from mynah.tasks.metrics.term_search import encode_docs, encode_scores

    scores = encode_scores({"d1": 1.0, "d2": -1.0, "d3": -2.0})
    return [(unit, encode_docs(["d1"]), scores) for unit, _, _ in table]


def _slots(table: Table) -> Table:
    from mynah.tasks.metrics import slots

    text = "GO TO B-city PARIS E-city"
    assert slots.values(text) == {"city": ["PARIS"]}
    return [(unit, text, text) for unit, _, _ in table]


def _turns(table: Table) -> Table:
    from mynah.tasks.metrics.diarization import encode
    from mynah.tasks.metrics.rttm import Turn

    text = encode([Turn(0.0, 1.5, "a"), Turn(1.0, 1.0, "b")])
    return [(unit, text, text) for unit, _, _ in table]
