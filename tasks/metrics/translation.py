"""Speech translation: corpus BLEU, by sacrebleu, and chrF.

BLEU (Papineni et al. 2002) is the brevity penalty times the geometric mean of the precisions of
1- to 4-grams, and both are functions of sums over sentences: the lengths of prediction and
reference, and of each order how many n-grams match and how many there are. So BLEU can be resampled
like every other metric here; tokenising, counting and the last formula are sacrebleu's (Post 2018),
case-sensitive on detokenised text, as SUPERB-SG scores.

chrF (Popovic 2015) compares n-grams of characters, 1 to 6 of them, spaces left out, which still tells
models apart that get no four words in a row right. It is the F-score, recall weighed twice, of the
precision and the recall that are averages over the orders that both sides have; both are of summed
counts. It is not part of SUPERB-SG.

The metrics are between 0 and 1, as all of ours; 100 times them is what sacrebleu prints.

Shape suffixes: O orders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mynah.tasks.metrics.metric import Floats, Metric, ratio

ORDERS = 4
CHARACTERS = 6  # longest n-gram of chrF
BETA = 2  # how much more recall counts in it

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


def chrf() -> Metric:
    """Return the metric ``chrf``: chrF2 as sacrebleu computes it by default.

    References without any character define none: a ``ValueError`` when scored.
    """

    def counts(refs: Sequence[str], hyps: Sequence[str], folds: Sequence[str]) -> Floats:
        table = np.zeros((len(refs), CHARACTERS, 3))
        for row, texts in enumerate(zip(refs, hyps, strict=True)):
            ref, hyp = ("".join(text.split()) for text in texts)
            for order in range(1, CHARACTERS + 1):
                wanted, given = _ngrams(ref, order), _ngrams(hyp, order)
                if wanted:  # sacrebleu counts nothing where the reference is too short
                    table[row, order - 1] = wanted.total(), given.total(), (wanted & given).total()
        return table.reshape(len(refs), -1)

    def value(sums: Floats) -> Floats:
        wanted_O, given_O, right_O = np.moveaxis(
            sums.reshape(*sums.shape[:-1], CHARACTERS, 3), -1, 0
        )
        both_O = (wanted_O > 0) & (given_O > 0)
        orders = np.maximum(both_O.sum(axis=-1), 1)
        recall = np.where(both_O, ratio(right_O, wanted_O), 0).sum(axis=-1) / orders
        precision = np.where(both_O, ratio(right_O, given_O), 0).sum(axis=-1) / orders
        weighed = BETA**2 * precision + recall
        scores = (1 + BETA**2) * precision * recall / np.where(weighed > 0, weighed, 1)
        return np.where(wanted_O[..., 0] > 0, scores, np.nan)

    return Metric(
        name="chrf",
        signature=f"chrf|case:mixed|nc:{CHARACTERS}|nw:0|beta:{BETA}|space:no|eff:yes|scale:1|v1",
        higher_is_better=True,
        counts=counts,
        value=value,
    )


def _ngrams(text: str, order: int) -> Counter[str]:
    return Counter(text[i : i + order] for i in range(len(text) - order + 1))
