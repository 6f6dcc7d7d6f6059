"""Random cases of what compares texts: error rates, BLEU, chrF, slots."""

from __future__ import annotations

import importlib
import importlib.util
import math
import random
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from mynah.recipes.parity.metric_pair import MetricPair

Pairs = Iterator[tuple[float, float]]
Unit = Literal["phone", "word", "char"]

_TOKENS: dict[Unit, str] = {
    "phone": "p t k a i u",
    "word": "the a dog cat ran no",
    "char": "a b c d",
}
_WORDS = ("Der", "Hund,", "läuft", "schnell", "nach", "Hause.", "der", "U.S.-Mann", "&quot;", "3,5")
_SIGNS = tuple("我们今天去学校，不是吗？abc")
_PLAIN = ("der", "hund", "rennt", "schnell", "nach", "hause", "und", "bellt")
_SLOTS = ("city", "city_name", "date", "artist", "n")
_VALUES = ("NEW", "YORK", "TEN", "A", "O'NEIL", "TAIPEI", "AT")
_CALLS_IT = "ours calls it"


def levenshtein(a: Sequence[object], b: Sequence[object]) -> int:
    """Return the edit distance (Wagner and Fischer 1974), a row of the table at a time."""
    steps = np.arange(len(b) + 1)
    row = steps.copy()
    for i, token in enumerate(a, start=1):
        equal = np.array([token == other for other in b], dtype=np.int64)
        best = np.concatenate([[i], np.minimum(row[1:] + 1, row[:-1] + 1 - equal)])
        row = np.minimum.accumulate(best - steps) + steps  # insertions, all at once
    return int(row[-1])


def _changed(rng: random.Random, tokens: Sequence[str], ref: Sequence[str]) -> list[str]:
    """Return a sequence with some tokens lost, replaced and added."""
    hyp: list[str] = []
    for token in ref:
        chance = rng.random()
        if chance > 0.1:
            hyp.append(token if chance > 0.3 else rng.choice(tokens))
        if chance > 0.9:
            hyp.append(rng.choice(tokens))
    return hyp


def _corpus(
    rng: random.Random, tokens: Sequence[str], *, between: str = " ", silent: bool = False
) -> tuple[list[str], list[str]]:
    """Return references, the first of which has a token, and what was made of them."""
    refs, hyps = [], []
    for row in range(rng.randint(1, 12)):
        ref = rng.choices(tokens, k=rng.randint(0 if silent and row else 1, 14))
        hyp = rng.choices(tokens, k=3) if rng.random() < 0.1 else _changed(rng, tokens, ref)
        refs.append(between.join(ref))
        hyps.append(between.join(hyp))
    return refs, hyps


def error_rate_by_jiwer(count: int, seed: int, *, unit: Unit) -> Pairs:
    """PER, WER or CER, and jiwer's."""
    import jiwer

    from mynah.tasks.metrics.error_rate import error_rate

    rng = random.Random(seed)
    theirs = jiwer.cer if unit == "char" else jiwer.wer
    for _ in range(count):
        refs, hyps = _corpus(rng, _TOKENS[unit].split())
        yield error_rate(unit).score(refs, hyps), theirs(refs, hyps)


def error_rate_by_definition(count: int, seed: int, *, unit: Unit) -> Pairs:
    """PER, WER or CER, and all edit distances over all lengths; references may be empty."""
    from mynah.tasks.metrics.error_rate import error_rate

    rng = random.Random(seed)
    for _ in range(count):
        refs, hyps = _corpus(rng, _TOKENS[unit].split(), silent=True)
        pairs = zip(refs, hyps, strict=True)
        tokens = [(r, h) if unit == "char" else (r.split(), h.split()) for r, h in pairs]
        edits = sum(levenshtein(ref, hyp) for ref, hyp in tokens)
        yield error_rate(unit).score(refs, hyps), edits / sum(len(ref) for ref, _ in tokens)


def bleu(count: int, seed: int) -> Pairs:
    """BLEU, every other time in Chinese, and sacrebleu's of the corpus."""
    import sacrebleu

    from mynah.tasks.metrics.translation import Tokenizer
    from mynah.tasks.metrics.translation import bleu as metric

    rng = random.Random(seed)
    metrics = {"13a": metric("13a"), "zh": metric("zh")}
    for index in range(count):
        tokenizer: Tokenizer = "zh" if index % 2 else "13a"
        refs, hyps = _corpus(rng, _SIGNS, between="") if index % 2 else _corpus(rng, _WORDS)
        theirs = sacrebleu.corpus_bleu(hyps, [refs], tokenize=tokenizer).score / 100
        yield metrics[tokenizer].score(refs, hyps), theirs


def bleu_by_definition(count: int, seed: int) -> Pairs:
    """BLEU of plain words, and its formula."""
    from mynah.tasks.metrics.translation import bleu as metric

    rng = random.Random(seed)
    ours = metric()
    for _ in range(count):
        refs, hyps = _corpus(rng, _PLAIN)
        yield ours.score(refs, hyps), _bleu([r.split() for r in refs], [h.split() for h in hyps])


def _bleu(refs: Sequence[Sequence[str]], hyps: Sequence[Sequence[str]]) -> float:
    """Return Papineni et al.'s (2002) BLEU; the k-th order without a match counts as 1 / 2^k."""
    precisions, halved = [], 1.0
    for order in range(1, 5):
        right = total = 0
        for ref, hyp in zip(refs, hyps, strict=True):
            grams = [
                Counter(tuple(text[i : i + order]) for i in range(len(text) - order + 1))
                for text in (ref, hyp)
            ]
            right += sum(min(times, grams[0][gram]) for gram, times in grams[1].items())
            total += sum(grams[1].values())
        if not total or (order == 1 and not right):
            return 0.0
        halved = halved if right else halved / 2
        precisions.append((right or halved) / total)
    shorter = sum(map(len, refs)) / sum(map(len, hyps))
    return math.exp(min(0.0, 1 - shorter)) * math.prod(precisions) ** 0.25


def chrf(count: int, seed: int) -> Pairs:
    """chrF, and sacrebleu's of the corpus."""
    import sacrebleu

    from mynah.tasks.metrics.translation import chrf as metric

    rng = random.Random(seed)
    for _ in range(count):
        refs, hyps = _corpus(rng, _WORDS)
        yield metric().score(refs, hyps), sacrebleu.corpus_chrf(hyps, [refs]).score / 100


def _sentence(rng: random.Random, *, spans: int = 0) -> str:
    """Return text with slots, ``spans`` of them at least."""
    parts = []
    for place in range(max(spans, rng.randint(0, 5))):
        value = " ".join(rng.choices(_VALUES, k=rng.randint(1, 3)))
        slot = rng.choice(_SLOTS)
        marked = place < spans or rng.random() < 0.6
        parts.append(f"B-{slot} {value} E-{slot}" if marked else value)
    return " ".join(parts)


def _decoded(rng: random.Random, text: str) -> str:
    """Return what a decoder might make of it: lost, changed and foreign words and markers."""
    tokens = []
    for token in text.split():
        chance = rng.random()
        if chance < 0.08:
            continue
        if chance < 0.16:
            tokens.append(rng.choice(_VALUES))
        elif chance < 0.22:
            tokens.append(rng.choice(("B-", "E-")) + rng.choice(_SLOTS))
        else:
            tokens += [token] * (2 if chance > 0.95 else 1)
    return rng.choice((" ", "  ")).join(tokens)


def slots(count: int, seed: int, *, name: str) -> Pairs:
    """One of the metrics of slots, and s3prl's function of that name."""
    from mynah.tasks.metrics import slots as metrics

    rng = random.Random(seed)
    edit = name.startswith("slot_edit_f1_")
    which: Literal["full", "part"] = "full" if name.endswith("full") else "part"
    metric = metrics.slot_edit_f1(which) if edit else getattr(metrics, name)()
    theirs = getattr(_s3prl_metrics(), name)
    scale = 100 if edit else 1  # these two are in per cent there
    for _ in range(count):
        refs = [_sentence(rng, spans=row == 0) for row in range(rng.randint(1, 8))]
        hyps = [_sentence(rng) if rng.random() < 0.15 else _decoded(rng, ref) for ref in refs]
        yield metric.score(refs, hyps), theirs(hyps, refs) / scale


def _s3prl_metrics() -> Any:
    """Return s3prl's module; without the package ``editdistance``, our distance takes its place."""
    from mynah.upstream.interop import s3prl_hub

    s3prl_hub.ensure_importable()
    absent = "editdistance" not in sys.modules and not importlib.util.find_spec("editdistance")
    if absent:
        stand_in = types.ModuleType("editdistance")
        stand_in.__dict__["eval"] = levenshtein
        sys.modules["editdistance"] = stand_in
    try:
        with s3prl_hub.quietly():
            return importlib.import_module("s3prl.downstream.ctc.metric")
    finally:
        if absent:
            del sys.modules["editdistance"]


def _pair(
    metric: str, package: str, what: str, cases: Callable[[int, int], Pairs], note: str = ""
) -> MetricPair:
    packages = (package,) if package else ()
    return MetricPair(
        metric=metric, packages=packages, what=what, cases=cases, allowed=1e-12, note=note
    )


def _error_rates(metric: str, unit: Unit) -> tuple[MetricPair, MetricPair]:
    what = "cer" if unit == "char" else "wer"
    return (
        _pair(metric, "jiwer", what, partial(error_rate_by_jiwer, unit=unit), _CALLS_IT),
        _pair(metric, "", "Levenshtein", partial(error_rate_by_definition, unit=unit)),
    )


PAIRS = (
    *_error_rates("per", "phone"),
    *_error_rates("wer", "word"),
    *_error_rates("cer", "char"),
    *(
        _pair(name, "s3prl", name, partial(slots, name=name))
        for name in (
            "slot_type_f1",
            "slot_value_cer",
            "slot_value_wer",
            "slot_edit_f1_full",
            "slot_edit_f1_part",
        )
    ),
    _pair("bleu", "sacrebleu", "corpus_bleu", bleu, "ours adds up its counts"),
    _pair("bleu (plain words)", "", "the formula", bleu_by_definition),
    _pair("chrf", "sacrebleu", "corpus_chrf", chrf),
)
