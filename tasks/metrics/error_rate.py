"""Error rates of sequences: PER, WER and CER, from jiwer's alignments.

An error rate is the total edit distance over the total length of the references, over the whole
corpus, so long utterances weigh more. It can exceed 1. An *empty reference* is not an error: what
was predicted for it counts as insertions, and it adds nothing to the length; if all references are
empty the rate is not defined, and asking for it is a ``ValueError``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import jiwer
import numpy as np

from mynah.tasks.metrics.metric import Floats, Metric, ratio

Unit = Literal["phone", "word", "char"]
NAMES: dict[Unit, str] = {"phone": "per", "word": "wer", "char": "cer"}


def error_counts(references: Sequence[str], predictions: Sequence[str], unit: Unit) -> Floats:
    """Return (n, 4) counts: substitutions, deletions, insertions, length of the reference.

    Args:
        references: tokens separated by single spaces (``char``: any text, spaces count).
        predictions: likewise.
        unit: what is counted; phones are counted as words are.

    Raises:
        ValueError: lists of different lengths.
    """
    if len(references) != len(predictions):
        raise ValueError(f"{len(references)} references but {len(predictions)} predictions")
    if not references:
        return np.zeros((0, 4))
    process = jiwer.process_characters if unit == "char" else jiwer.process_words
    done = process(list(references), list(predictions))
    table = np.zeros((len(references), 4))
    for row, (chunks, tokens) in enumerate(zip(done.alignments, done.references, strict=True)):
        for chunk in chunks:
            if chunk.type == "substitute":
                table[row, 0] += chunk.ref_end_idx - chunk.ref_start_idx
            elif chunk.type == "delete":
                table[row, 1] += chunk.ref_end_idx - chunk.ref_start_idx
            elif chunk.type == "insert":
                table[row, 2] += chunk.hyp_end_idx - chunk.hyp_start_idx
        table[row, 3] = len(tokens)
    return table


def error_rate(
    unit: Unit, *, norm: str = "none", prepare: Callable[[str], str] | None = None
) -> Metric:
    """Return the metric ``per``, ``wer`` or ``cer``; text is compared as it is.

    Args:
        unit: what is counted.
        norm: what was done to references and predictions before, for the signature.
        prepare: what is done to each of them here.
    """

    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        if prepare is not None:
            refs, hyps = [prepare(text) for text in refs], [prepare(text) for text in hyps]
        return error_counts(refs, hyps, unit)

    return Metric(
        name=NAMES[unit],
        signature=f"{NAMES[unit]}|norm:{norm}|unit:{unit}|v1",
        higher_is_better=False,
        counts=counts,
        value=lambda sums: ratio(sums[..., :3].sum(axis=-1), sums[..., 3]),
    )
