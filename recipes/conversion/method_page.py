"""What ``mynah judge methods`` writes as JSON: every score, every pair, every conversion.

Scores that need the target's own recording of the sentence are null where pairs were drawn without;
``why_null`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mynah.recipes.conversion.method_lines import NEED_SENTENCE
from mynah.recipes.conversion.method_report import WHY_NONE
from mynah.recipes.conversion.method_scores import Panel, Scored
from mynah.recipes.conversion.pairs import Pair
from mynah.recipes.conversion.systems import System
from mynah.tasks.corpora.corpus import Corpus
from mynah.tasks.metrics.bootstrap import Interval

if TYPE_CHECKING:
    from mynah.recipes.judge_methods import Args

FORMAT = 1


def page_of(
    args: Args,
    corpus: Corpus,
    splits: Sequence[str],
    pairs: Sequence[Pair],
    rows: Sequence[tuple[System, Scored]],
    panel: Panel,
    own: Mapping[str, Mapping[str, Interval]],
) -> dict[str, Any]:
    """Return what is written.

    Args:
        args: of the command.
        corpus: that pairs were drawn from.
        splits: likewise; none for all of it.
        pairs: that were converted.
        rows: systems and what was found of them.
        panel: that judged.
        own: ``real`` and ``vocoded`` -> score -> the judges' own error.
    """
    from mynah import __version__

    def plain(found: Mapping[str, Interval]) -> dict[str, Any]:
        return {name: asdict(one) for name, one in found.items()}

    nothing: dict[str, Any] = {} if panel.parallel else dict.fromkeys(NEED_SENTENCE)

    return {
        "format": FORMAT,
        "corpus": corpus.name,
        "corpus_version": corpus.version,
        "splits": splits,
        "sentence": args.sentence,
        "why_null": None if panel.parallel else WHY_NONE,
        "same": args.same,
        "to": args.to,
        "targets": args.targets,
        "own": args.own,
        "seed": args.seed,
        "rate": panel.args.rate,
        "voice": panel.measure,
        "verification": panel.how,
        "judges": {name: plain(found) for name, found in own.items()},
        "pairs": [
            {
                "id": p.id,
                "source": p.source.id,
                "source_speaker": p.source.speaker,
                "target": p.target.id,
                "target_speaker": p.target.speaker,
                "sentence": p.source.label(args.sentence) if args.sentence else None,
                "genders": p.genders,
                "references": [u.id for u in p.references],
                "own": [u.id for u in p.own],
                "again": p.again.id if p.again else None,
            }
            for p in pairs
        ],
        "rows": [
            {
                "method": system.name,
                "kind": system.kind,
                "identity": system.identity,
                "n": sum(file is not None for file in system.files),
                "metrics": {**nothing, **plain(scored.metrics)},
                "by_genders": {
                    name: {**nothing, **plain(one)} for name, one in scored.by_genders.items()
                },
                "perplexity": scored.perplexity,
                "conversions": [
                    {**one, "file": str(file) if args.keep and file else None}
                    for one, file in zip(scored.conversions, system.files, strict=True)
                ],
            }
            for system, scored in rows
        ],
        "mynah": __version__,
    }
