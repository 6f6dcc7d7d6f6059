"""Speech translation: corpus BLEU, by sacrebleu.

BLEU (Papineni et al. 2002) is the brevity penalty times the geometric mean of the precisions of
1- to 4-grams, and both are functions of sums over sentences: the lengths of prediction and
reference, and of each order how many n-grams match and how many there are. So BLEU can be resampled
like every other metric here; tokenising, counting and the last formula are sacrebleu's (Post 2018),
case-sensitive on detokenised text, as SUPERB-SG scores.

The metric is between 0 and 1, as all of ours; 100 times it is what sacrebleu prints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mynah.tasks.metrics.metric import Floats, Metric

ORDERS = 4

Tokenizer = Literal["13a", "zh"]


def bleu(tokenizer: Tokenizer = "13a") -> Metric:
    """Return the metric ``bleu``; its signature holds sacrebleu's own.

    A prediction that is empty has no n-grams, and only its reference's length counts. References
    that are all empty define no BLEU: a ``ValueError`` when scored.

    Args:
        tokenizer: sacrebleu's name: ``13a``, or ``zh`` for Chinese references.

    Raises:
        ValueError: another tokenizer.
    """
    from sacrebleu.metrics.bleu import BLEU

    if tokenizer not in ("13a", "zh"):
        raise ValueError(f"expected tokenizer '13a' or 'zh', got {tokenizer!r}")
    corpus = BLEU(tokenize=tokenizer)
    corpus.corpus_score(["a"], [["a"]])  # its signature is known only after a first score
    sentence = BLEU(tokenize=tokenizer, effective_order=True)  # of which the counts are taken

    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        table = np.zeros((len(refs), 2 + 2 * ORDERS))
        for row, (ref, hyp) in enumerate(zip(refs, hyps, strict=True)):
            found = sentence.sentence_score(hyp, [ref])
            table[row] = [found.sys_len, found.ref_len, *found.counts, *found.totals]
        return table

    def value(sums: Floats) -> Floats:
        rows = sums.reshape(-1, 2 + 2 * ORDERS)
        scores = np.full(len(rows), np.nan)
        for i, (sys_len, ref_len, *rest) in enumerate(np.rint(rows).astype(np.int64).tolist()):
            if ref_len:
                found = BLEU.compute_bleu(
                    rest[:ORDERS], rest[ORDERS:], sys_len, ref_len, smooth_method="exp"
                )
                scores[i] = found.score / 100
        return scores.reshape(sums.shape[:-1])

    return Metric(
        name="bleu",
        signature=f"bleu|{corpus.get_signature()}|scale:1|v1",
        higher_is_better=True,
        counts=counts,
        value=value,
    )
