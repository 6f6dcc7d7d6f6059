"""What ``mynah judge methods`` says of its scores: Markdown tables, and what must be known beside.

A row is a system and what was found of it; anchors stand first, in italics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mynah.recipes.conversion.method_lines import NEED_SENTENCE
from mynah.recipes.conversion.method_scores import Panel, Scored
from mynah.recipes.conversion.pairs import Pair
from mynah.recipes.conversion.systems import System
from mynah.tasks.metrics.bootstrap import Interval

Rows = Sequence[tuple[System, Scored]]

HEADS = {
    "mcd": "MCD dB",
    "mcd_c1": "without c(0)",
    "f0_rmse": "F0 RMSE Hz",
    "f0_corr": "F0 corr",
    "f0_corr_source": "F0 corr to source",
    "f0_off": "F0 off, semitones",
    "cer": "CER %",
    "per": "PER %",
    "accept": "accept %",
    "eer": "EER %",
    "margin": "margin",
    "rtf": "CPU s / s",
}
GENDERS = {"within": "within gender", "across": "across genders"}
NONE = "–"
WHY_NONE = (
    "MCD (with c(0) or without), F0 RMSE and F0 corr are dashes, and null in the JSON (ddur too): they "
    "need the target's own recording of the sentence, and pairs were drawn without (--sentence LABEL "
    "draws them with it, where speakers say the same sentences)."
)


def cell(name: str, found: Interval | None) -> str:
    """Return a score and its interval as the table shows them."""
    if found is None:
        return NONE
    digits = 1 if found.scale == 100 or name == "f0_rmse" else 2
    value, low, high = (
        f"{found.scale * x:.{digits}f}" for x in (found.value, found.low, found.high)
    )
    return f"{value} [{low}, {high}]"


def table(rows: Rows, *, parallel: bool = True) -> list[str]:
    """Return the Markdown table: a row per anchor and method, a column per score that any has.

    Args:
        rows: systems and what was found of them.
        parallel: whether there is the target's own recording of the sentence; what needs it has a
            column all the same.
    """
    needed = () if parallel else NEED_SENTENCE
    shown = [
        name
        for name in HEADS
        if name in needed or any(name in scored.metrics for _, scored in rows)
    ]
    coded = any(scored.perplexity is not None for _, scored in rows)
    lines = [["method", "n", *(HEADS[name] for name in shown)]]
    if coded:
        lines[0].append("codes, perplexity")
    for system, scored in rows:
        count = sum(file is not None for file in system.files)
        name = f"*{system.name}*" if system.kind == "anchor" else system.name
        cells = [name, str(count), *(cell(key, scored.metrics.get(key)) for key in shown)]
        if coded:
            cells.append(NONE if scored.perplexity is None else f"{scored.perplexity:.1f}")
        lines.append(cells)
    lines.insert(1, ["---"] * len(lines[0]))
    return [f"| {' | '.join(cells)} |" for cells in lines]


def gender_table(rows: Rows, *, parallel: bool = True) -> list[str]:
    """Return a second table, of pairs within one gender and across, where there are both.

    Args:
        rows: systems and what was found of them.
        parallel: whether there is the target's own recording of the sentence.
    """
    known = [name for name in GENDERS if any(name in scored.by_genders for _, scored in rows)]
    keys = ("mcd", "f0_rmse", "margin") if parallel else ("f0_off", "margin")
    shown = [(key, name) for key in keys for name in known]
    if len(known) < len(GENDERS):
        return []
    lines = [["method", *(f"{HEADS[key]}, {GENDERS[name]}" for key, name in shown)]]
    lines.append(["---"] * len(lines[0]))
    for system, scored in rows:
        found = [scored.by_genders.get(name, {}).get(key) for key, name in shown]
        cells = [cell(key, one) for (key, _), one in zip(shown, found, strict=True)]
        lines.append([f"*{system.name}*" if system.kind == "anchor" else system.name, *cells])
    return ["", *(f"| {' | '.join(cells)} |" for cells in lines)]


def notes(
    rows: Rows,
    panel: Panel,
    own: Mapping[str, Mapping[str, Interval]],
    pairs: Sequence[Pair],
) -> list[str]:
    """Return what must be known to read the table, and what the judges are worth."""
    units = {one.unit for _, scored in rows for one in scored.metrics.values()}
    who = "speakers" if "speaker" in units else "conversions (fewer than 5 speakers)"
    by_sentence = (
        f"MCD (c(0) included, exact DTW), F0 RMSE and F0 corr, at {panel.args.rate} Hz, are to the "
        "target's own recording of the sentence; "
    )
    out = [
        "",
        f"Anchors in italics. {len(pairs)} pairs of "
        f"{len({p.source.speaker for p in pairs})} sources and "
        f"{len({p.target.speaker for p in pairs})} targets; 95 % intervals, {who} drawn. "
        f"{by_sentence if panel.parallel else ''}F0 corr to source: of log F0, frame by frame, of what "
        "has the source's timing; F0 off: between the medians of a file and of what the converter "
        "heard of the target; margin: cosine to target minus to source, of "
        f"{panel.measure}; higher is better of F0 corr, accept, EER and margin.",
    ]
    if not panel.parallel:
        out.append(WHY_NONE)
    if panel.how:
        out.append(
            f"accept: {panel.measure} above {panel.how['threshold']:.3f}, the threshold at the EER of "
            f"{panel.how['target_trials']} real trials of one speaker and "
            f"{panel.how['other_trials']} of two; by other recordings of the target than the converter "
            "heard and than the sentence itself."
        )
    if panel.asr is not None:
        what, name = ("CER", "text") if panel.asr.writes == "words" else ("PER", "phones")
        known = sum(panel.asr.reference(p.source) is not None for p in pairs)
        if known < len(pairs):
            out.append(f"{what} is of {known} conversions: the other sources have no {name}.")
    for kind, found in own.items():
        said = ", ".join(f"{key.upper()} {cell(key, one)} %" for key, one in found.items())
        if said:
            speech = "real speech" if kind == "real" else "its copies through the vocoder"
            out.append(f"The judges' own errors on {speech}: {said}.")
    return out
