"""``mynah export results DIR --as FORM --out FILE``: scores in the forms that others read.

``lm-eval`` is the results JSON of EleutherAI's evaluation harness, ``model-index`` the front matter of a
Hugging Face model card, ``latex`` a booktabs table, ``markdown`` the table of ``mynah table``.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from mynah.recipes.results import Result
    from mynah.recipes.table import Table

Form = Literal["lm-eval", "model-index", "latex", "markdown"]
PROBLEMS = {  # Hugging Face's names of kinds of task
    "pr": "automatic-speech-recognition",
    "asr": "automatic-speech-recognition",
    "ood_asr": "automatic-speech-recognition",
    "sf": "automatic-speech-recognition",
    "st": "translation",
    "sd": "voice-activity-detection",
    "se": "audio-to-audio",
    "ss": "audio-to-audio",
    "vc": "audio-to-audio",
}
LATEX = {
    "\\": r"\textbackslash{}",
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
NORMAL = 2 * 1.959964  # a 95 % interval of a normal distribution, in standard errors


@dataclass(frozen=True, kw_only=True)
class Args:
    """Write scores in a form that other programs and papers read."""

    results: Annotated[Path, Positional]
    """Folder that ``mynah probe`` or ``mynah bench`` wrote."""
    form: Annotated[Form, arg(name="as")]
    """Which form."""
    out: Path | None = None
    """File to write; default: print it."""
    upstream: str | None = None
    """Only this upstream; needed for lm-eval and model-index where the folder has several."""
    protocol: str | None = None
    """Only this protocol (superb or fixed)."""


def lm_eval(results: Sequence[Result]) -> str:
    """Return the results of one upstream as the evaluation harness writes them.

    Metrics are ``name,none`` with the standard error that the interval would have if it were normal;
    values are in their own unit (fractions, BLEU, PESQ, decibels).

    Raises:
        ValueError: several upstreams, or seeds that differ in more.
    """
    first = _one_upstream(results)
    page: dict[str, dict[str, Any]] = {
        name: {}
        for name in ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples")
    }
    for name, found in _by_task(results).items():
        one = found[0]
        row: dict[str, Any] = {"alias": name}
        directions = {}
        for metric in one.metrics:
            scores = [r.metrics[metric] for r in found if metric in r.metrics]
            low, high = (
                statistics.fmean([getattr(m, end) for m in scores]) for end in ("low", "high")
            )
            row[f"{metric},none"] = statistics.fmean([m.value for m in scores])
            row[f"{metric}_stderr,none"] = (high - low) / NORMAL
            if metric == one.metric:
                directions[metric] = one.higher_is_better
        page["results"][name] = row
        page["configs"][name] = {
            "task": one.task,
            "dataset_name": one.corpus,
            "dataset_version": one.corpus_version,
            "protocol": one.protocol,
            "settings": dict(one.settings),
            "seeds": [r.seed for r in found],
        }
        page["versions"][name] = one.task_version
        page["n-shot"][name] = 0
        page["higher_is_better"][name] = directions
        page["n-samples"][name] = {
            "original": one.n_test,
            "effective": one.main.n,  # what was skipped may be of train, and n_test is without it
        }
    whole = {
        **page,
        "group_subtasks": {name: [] for name in page["results"]},
        "config": {
            "model": "mynah",
            "model_args": first.spec,
            "model_num_parameters": first.upstream_params,
            "model_sha": first.fingerprint,
        },
        "model_name": first.upstream,
        "model_source": "mynah",
    }
    return json.dumps(whole, indent=2) + "\n"


def model_index(results: Sequence[Result]) -> str:
    """Return the front matter of a Hugging Face model card, with every score of one upstream.

    Raises:
        ValueError: several upstreams, or seeds that differ in more.
    """
    import yaml

    first = _one_upstream(results)
    entries = []
    for found in _by_task(results).values():
        one = found[0]
        metrics = []
        for name in one.metrics:
            scores = [r.metrics[name] for r in found if name in r.metrics]
            value, low, high = (
                scores[0].scale * statistics.fmean([getattr(m, part) for m in scores])
                for part in ("value", "low", "high")
            )
            metrics.append(
                {
                    "type": name,
                    "value": round(value, 4),
                    "name": f"{name} (95 % interval {low:.2f} to {high:.2f}, {len(scores)} seeds)",
                }
            )
        entries.append(
            {
                "task": {
                    "type": PROBLEMS.get(one.task, "audio-classification"),
                    "name": f"SUPERB {one.task}, protocol {one.protocol}",
                },
                "dataset": {
                    "name": one.corpus,
                    "type": one.corpus,
                    "revision": one.corpus_version[:40],
                    "split": "test",
                },
                "metrics": metrics,
            }
        )
    page = {
        "library_name": "mynah",
        "tags": ["speech", "self-supervised-learning", "superb"],
        "model-index": [{"name": first.upstream, "results": entries}],
    }
    return f"---\n{yaml.safe_dump(page, sort_keys=False, allow_unicode=True)}---\n"


def latex(table: Table) -> str:
    """Return a booktabs table, warnings as comments; the best of each column is bold."""
    from mynah.recipes.table import best, heading, notes, shown_as

    leaders = [best(table, i) for i in range(len(table.columns))]
    heads = [
        escaped(heading(c).replace("↑", "").replace("↓", ""))
        + (r" $\uparrow$" if c[4] else r" $\downarrow$")
        for c in table.columns
    ]
    lines = [
        r"% needs \usepackage{booktabs}",
        *(f"% {note}" for note in notes(table) if note.startswith("Warning:")),
        rf"\begin{{tabular}}{{l{'r' * len(heads)}}}",
        r"\toprule",
        " & ".join(["upstream", *heads]) + r" \\",
        r"\midrule",
    ]
    for upstream, cells in table.rows.items():
        shown = [escaped(upstream)]
        for i in range(len(heads)):
            text = escaped(shown_as(cells[i])).replace("±", r"$\pm$") if i in cells else "--"
            shown.append(rf"\textbf{{{text}}}" if leaders[i] == upstream else text)
        lines.append(" & ".join(shown) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def escaped(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(LATEX.get(c, c) for c in text)


def _one_upstream(results: Sequence[Result]) -> Result:
    names = sorted({r.upstream for r in results})
    if len(names) > 1:
        raise ValueError(
            f"this form holds one upstream; choose with --upstream: {', '.join(names)}"
        )
    return results[0]


def _by_task(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return results that differ in their seed only, by a name for them.

    Raises:
        ValueError: under one name, results that ``mynah table`` warns of; a form of one score each has
            no place for a warning.
    """
    found: dict[str, list[Result]] = defaultdict(list)
    for r in results:
        layer = "" if r.layer is None else f"_layer{r.layer}"
        found[f"{r.label.replace(' ', '_')}_{r.corpus}_{r.protocol}{layer}"].append(r)
    for name, same in found.items():
        if len({r.terms for r in same}) > 1:
            raise ValueError(
                f"results of {name} differ in {'; '.join(_differences(same))}: they have no mean; "
                "export a folder that holds those of one run"
            )
    return dict(sorted(found.items()))


def _differences(results: Sequence[Result]) -> list[str]:
    """Return the terms that results do not share, with what each of them has."""
    facts = [
        {"task version": r.task_version, "corpus version": r.corpus_version[:12], **r.settings}
        for r in results
    ]
    out = []
    for name in dict.fromkeys(name for each in facts for name in each):
        values = sorted({str(each.get(name, "")) or "none" for each in facts})
        if len(values) > 1:
            out.append(f"{name} ({' | '.join(values)})")
    return out


def main(args: Args) -> int:
    """Write or print the scores; exit status 0.

    Raises:
        FileNotFoundError: no results.
        ValueError: a damaged result, none left, or what a form cannot hold: several upstreams,
            seeds that differ in more.
    """
    from mynah.files import write_text
    from mynah.recipes.results import load_all
    from mynah.recipes.table import collect, markdown

    have = load_all(args.results)
    results = [
        r
        for r in have
        if args.upstream in (None, r.upstream) and args.protocol in (None, r.protocol)
    ]
    if not results:
        there = sorted({f"{r.upstream} ({r.protocol})" for r in have})
        raise ValueError(
            f"no result of {args.upstream or 'any upstream'} under {args.protocol or 'any protocol'}; "
            f"there are: {', '.join(there)}"
        )
    if args.form == "lm-eval":
        text = lm_eval(results)
    elif args.form == "model-index":
        text = model_index(results)
    else:
        text = (latex if args.form == "latex" else markdown)(collect(results))
    if args.out is None:
        sys.stdout.write(text)
    else:
        write_text(args.out, text)
        sys.stdout.write(f"{args.out}: {len(results)} results as {args.form}\n")
    return 0
