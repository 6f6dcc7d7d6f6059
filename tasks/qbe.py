"""QbE, query by example: which documents hold what a spoken query says. Nothing is trained.

Official corpus: QUESST 2014, its documents and queries in non-native English. Labels: ``subset``
(``documents`` or ``queries``) and, on a query, ``documents``: the ids of those that hold it. All
documents are searched by the queries of dev and, apart from them, by those of test. Each layer of
the upstream is tried by itself, the one that is best on dev is scored on test.

The search: every dimension is normalised to zero mean and unit deviation over all frames of the
queries and documents that are compared; a query is aligned to some part of a document by DTW
(``tasks.core.dtw``: exp(cosine distance) - 1, each of the query's frames scaled to [0, 1] over the
document); the score is minus the mean cost, normalised to zero mean and unit deviation over the
documents of a query (``tasks.core.znorm``). A query of fewer than 5 frames finds nothing.

Another corpus becomes a search in one of two ways, both by transcript; words are compared without
case and punctuation, and a document holds a query if it has its words one after the other.

- With the label ``term``, the utterances of dev and test that carry it are the queries. A part's
  documents are its other utterances of two words or more.
- Without it, the documents are train's utterances of two words or more (of one, if there are none
  of two). Queries are single words of dev and test, whose speakers are others: cut out by time,
  where there is a tier ``words``, or utterances of one word. They last 0.2 s at least and are held
  by no more than half of the documents. Of each speaker's takes of a word one is asked.

Such queries are held by one document at least; each part has at most 100, and 1000 documents are
searched at most, chosen by hash.

``superb`` repeats s3prl's recipe (``downstream/quesst14_dtw``), which hears audio 3 dB softer
(``gain -3``, ``tasks.corpora.hearing``), whose file of scores has four decimals, and whose layer is
chosen by hand from runs of all layers on dev.

``fixed`` differs in: audio is heard as it was recorded; scores are kept to six decimals, because
rounding makes ties that thresholds cannot tell apart. Nothing else needed to be mended: nothing is chosen on test.

Score: ``mtwv``, the term-weighted value at the best threshold, mean over queries of 1 - P_miss -
12.49 P_fa (``tasks.metrics.term_detection``; the leaderboard's ``maxTWV``, times 100); ``map`` and
``eer``, which the challenge used on its hidden set. Queries that no document holds do not count.
Intervals resample queries.

Shape suffixes: L layers, T frames, D width, Q queries, N documents.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from mynah.tasks.core import dtw
from mynah.tasks.core.contract import Data, DataError, Decoded, Protocol, Rows, Spec, Split, Task
from mynah.tasks.core.searches import Search, searches_of
from mynah.tasks.core.znorm import RunningMoments, normalise_scores
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.metric import Measure
from mynah.tasks.metrics.term_detection import average_precision, mtwv, pair_eer
from mynah.tasks.metrics.term_search import encode_docs, encode_scores

SPEC = Spec(
    name="qbe",
    problem="which documents hold what a spoken query says",
    resolution="frame",
    labels=("documents|term|text",),
    metric="mtwv",
    higher_is_better=True,
    split_unit="query",
    resample_by="query",
    version=2,
    licence="QUESST 2014: for research (recalled)",
    citation="Anguera et al. 2015, doi:10.1109/ICASSP.2015.7179086; SUPERB: arXiv:2105.01051",
)

READ_SECONDS = 60.0  # of documents whose frames are held at once
CHUNK = 500  # frames whose moments are taken at once
DECIMALS = {"superb": 4, "fixed": 6}
NOTHING_TRAINED = Protocol(
    batch_size=1, accumulate=1, clip=1.0, steps=0, eval_every=1, learning_rates=()
)

Read = Callable[[Sequence[Utterance]], list[Tensor]]


class QueryByExample(Task):
    """Query by example under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": NOTHING_TRAINED,
        "superb": dataclasses.replace(NOTHING_TRAINED, hearing="softer"),
    }
    TRAINED = False

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.searches: dict[str, Search] = {}
        """What is searched in ``dev`` and in ``test``."""

    # -- data -------------------------------------------------------------------------------

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Find queries, documents and which holds which; see the contract's :meth:`Task.load`.

        Raises:
            DataError: see :func:`~mynah.tasks.core.searches.searches_of`.
        """
        self.searches, note = searches_of(
            self.heard(utterances), seed=seed, take_given=self.splits == "corpus"
        )
        splits = {
            name: Split(
                name=name,
                utterances=tuple(sorted(s.queries + s.documents, key=lambda u: u.id)),
            )
            for name, s in self.searches.items()
        }
        self.data = Data(
            folds={"": (Split(name="train", utterances=()), splits["dev"], splits["test"])},
            classes=(),
            notes=(note, *(self._say(name) for name in self.searches)),
        )
        return self.data

    def _say(self, name: str) -> str:
        search = self.searches[name]
        empty = sum(not ids for ids in search.true.values())
        return f"{name}: {len(search.queries)} queries in {len(search.documents)} documents" + (
            f", {empty} of them in none" if empty else ""
        )

    # -- search -----------------------------------------------------------------------------

    def decode_layers(self, split: Split, read: Read) -> list[Sequence[Decoded]]:
        """Return, for each layer, the scores (N,) of each query, and nothing for each document.

        Queries are kept in memory, documents are read twice, a minute of audio at a time.

        Args:
            split: dev or test.
            read: returns the frames of utterances, each (L, T, D).

        Raises:
            DataError: all queries are shorter than 5 frames.
        """
        search = self.searches[split.name]
        moments = RunningMoments()
        queries = read(search.queries)
        if max(x_LTD.shape[1] for x_LTD in queries) < dtw.SHORTEST:
            raise DataError(
                f"every query of {split.name} is shorter than {dtw.SHORTEST} frames: there is "
                "nothing to compare; take longer ones, or an upstream with more frames a second"
            )
        for x_LTD in queries:
            moments.update(x_LTD)
        longest_first = sorted(search.documents, key=lambda u: (-u.duration, u.id))
        for x_LTD in _frames(longest_first, read):
            for part_LTD in x_LTD.split(CHUNK, dim=1):
                moments.update(part_LTD)
        scores_LQN = dtw.match(
            [moments.normalise(x_LTD) for x_LTD in queries],
            (moments.normalise(x_LTD) for x_LTD in _frames(longest_first, read)),
        )
        place = {u.id: i for i, u in enumerate(longest_first)}
        columns = [place[u.id] for u in search.documents]
        normalised_LQN = normalise_scores(scores_LQN[..., columns]).cpu().numpy()
        at = {u.id: i for i, u in enumerate(search.queries)}
        return [
            [scores_QN[at[u.id]] if u.id in at else "" for u in split.utterances]
            for scores_QN in normalised_LQN.astype(np.float32)
        ]

    def rows(self, split: Split, decoded: Sequence[Decoded]) -> Rows:
        """Return a row for each query: the documents that hold it, and the scores of all."""
        search = self.searches[split.name]
        said = {u.id: one for u, one in zip(split.utterances, decoded, strict=True)}
        decimals = DECIMALS[self.protocol_name]
        predictions = []
        for query in search.queries:
            scores = zip(search.documents, np.asarray(said[query.id]).tolist(), strict=True)
            predictions.append(encode_scores({u.id: round(s, decimals) for u, s in scores}))
        ids = [u.id for u in search.queries]
        return Rows(
            ids=ids,
            units=ids,
            unit=SPEC.resample_by,
            references=[encode_docs(search.true[i]) for i in ids],
            predictions=predictions,
        )

    def reference(self, utterance: Utterance) -> str:
        """Return the documents that hold a query of dev or test, none for a document."""
        found = (s.true[utterance.id] for s in self.searches.values() if utterance.id in s.true)
        return encode_docs(next(found, ()))

    def metrics(self) -> tuple[Measure, ...]:
        """Return MTWV, MAP and EER over the queries of test."""
        docs = [u.id for u in self.searches["test"].documents]
        return (mtwv(docs), average_precision(docs), pair_eer(docs))

    def dev_metric(self) -> Measure:
        """Return MTWV over the queries of dev."""
        return mtwv([u.id for u in self.searches["dev"].documents])

    # -- there is no head -------------------------------------------------------------------

    def head(self, dim: int) -> nn.Module:
        """Refuse: nothing is trained.

        Raises:
            NotImplementedError: always; see :meth:`decode_layers`.
        """
        raise NotImplementedError("task 'qbe' has no head: see decode_layers")

    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Refuse: nothing is trained.

        Raises:
            NotImplementedError: always; see :meth:`decode_layers`.
        """
        raise NotImplementedError("task 'qbe' has no loss: see decode_layers")

    def decode(
        self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> list[Decoded]:
        """Refuse: nothing is trained.

        Raises:
            NotImplementedError: always; see :meth:`decode_layers`.
        """
        raise NotImplementedError("task 'qbe' has no head: see decode_layers")


def _frames(documents: Sequence[Utterance], read: Read) -> Iterator[Tensor]:
    """Yield the frames of documents in order, read about a minute of audio at a time."""
    batch: list[Utterance] = []
    seconds = 0.0
    for u in documents:
        if batch and seconds + u.duration > READ_SECONDS:
            yield from read(batch)
            batch, seconds = [], 0.0
        batch.append(u)
        seconds += u.duration
    if batch:
        yield from read(batch)


TASK = QueryByExample
