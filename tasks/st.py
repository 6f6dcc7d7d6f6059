"""ST, speech translation: what an utterance says in one language, written in another.

Official corpus: CoVoST 2 English to German with the official splits, cleaned as SUPERB-SG does when it
is prepared (all parts, test included). Label: ``translation``. Targets are written in characters, of
which train has the inventory.

``superb`` repeats s3prl's recipe (``downstream/speech_translation``, with fairseq's
``s2t_transformer`` as head):

- characters are those of a SentencePiece character model (all characters of train, at most 1000
  symbols; ``mynah.tasks.core.letters`` defines them, none is trained): NFKC, a mark before each
  word, ``<unk>`` for what train lacks. References are decoded from these symbols as predictions are,
  so that they too are normalised and hold ``<unk>``; an empty prediction reads ``<unk>``;
- loss: cross-entropy with label smoothing 0.1 (fairseq's: the rest of the mass is shared by the other
  symbols), summed over the symbols of a target, averaged over targets;
- Adam; the learning rate grows for 10 000 updates, then falls to a hundredth of itself at once and on
  with the root of the updates (a factor is missing in ``get_sqrt_decay_schedule_with_warmup``);
- batches of 10 000 frames, padding included: 200 s here, whatever the frame, which is the same at the
  20 ms of most published rows; of like length, 8 of them per update, clipped to a norm of 10, 32 000
  updates, dev every 2 000;
- audio beyond 6000 frames is cut off in all parts, of which nothing else is said in the target;
- a beam of 20 on dev and test, at most 400 symbols. Parts are taken as they are.

``fixed`` differs in: characters and references are as they stand in the corpus, since a reference is
not the model's to write; the loss is a mean over the symbols of a target, so that long sentences do
not outweigh short ones and the clipping (to a norm of 1) does not act on length; the learning rate
falls from where it rose to, after 500 updates, and is searched between 2e-4 and 5e-3, outside which
a Transformer does not train; 256 utterances or 800 s per update, in one batch, at most 20 000 updates,
fewer when dev no longer improves; training utterances beyond 6000 frames are skipped and
counted rather than cut; dev is searched greedily, which ranks steps and costs a fraction, test with a
beam of 5; no speaker is in two parts; ties on dev are told apart by the cross-entropy per symbol.

The ``small`` head has width 128 (feed-forward 256, 4 heads, 128 convolution channels), 2 + 2 layers.

Score: BLEU over the corpus, case-sensitive and detokenised, by sacrebleu (13a; zh where more than
half of train's target characters are Chinese), and chrF, which SUPERB-SG does not report.

Shape suffixes: K heads, B batch, U target symbols, V symbols.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from mynah.downstream.core.seq2seq import teacher_forcing
from mynah.downstream.translator import Translator
from mynah.tasks.core.contract import Data, DataError, Facts, Protocol, Spec, Split, Task
from mynah.tasks.core.letters import EOS, PAD, UNK, Letters, spelled
from mynah.tasks.core.splits import (
    as_splits,
    check_disjoint,
    first_few,
    given_or_made,
    labelled,
    speaker_unit,
)
from mynah.tasks.corpora.utterance import Utterance
from mynah.tasks.metrics.metric import Metric
from mynah.tasks.metrics.translation import Tokenizer, bleu, chrf

SPEC = Spec(
    name="st",
    problem="what was said, in another language",
    resolution="frame",
    labels=("translation",),
    metric="bleu",
    higher_is_better=True,
    split_unit="speaker",
    version=1,
    licence="CoVoST 2 and Common Voice: CC0",
    citation="Wang et al. 2020, arXiv:2007.10310; SUPERB-SG: Tsai et al. 2022, arXiv:2203.06849",
)

SMOOTHING = 0.1
MAX_FRAMES = 6000  # of a source
MAX_TARGET = 1024  # symbols that are trained on
MAX_SYMBOLS = 400  # of a search
LIMIT = 1000  # symbols of SUPERB's character model
BEAMS = {"superb": {"dev": 20, "test": 20}, "fixed": {"dev": 1, "test": 5}}


def token_losses(logits_KBUV: Tensor, answers_BU: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return cross-entropies (K, B, U), zero where there is no answer.

    Args:
        logits_KBUV: before the softmax.
        answers_BU: right symbols, padded with ``<pad>``.
        smoothing: mass that the other symbols share, as fairseq's ``label_smoothed_cross_entropy``
            has it.
    """
    logs_KBUV = logits_KBUV.log_softmax(dim=-1)
    at_KBU1 = answers_BU[None, :, :, None].expand(logits_KBUV.shape[0], -1, -1, 1)
    right_KBU = -logs_KBUV.gather(-1, at_KBU1).squeeze(-1)
    other = smoothing / (logits_KBUV.shape[-1] - 1)
    losses_KBU = (1 - smoothing - other) * right_KBU - other * logs_KBUV.sum(dim=-1)
    masked: Tensor = losses_KBU.masked_fill(answers_BU == PAD, 0.0)
    return masked


def tokenizer_of(texts: Sequence[str]) -> Tokenizer:
    """Return ``zh`` where more than half of the characters are Chinese, else ``13a``."""
    characters = "".join("".join(text.split()) for text in texts)
    chinese = sum("\u4e00" <= c <= "\u9fff" for c in characters)
    return "zh" if 2 * chinese > len(characters) else "13a"


class SpeechTranslation(Task):
    """Speech translation under one protocol."""

    SPEC = SPEC
    PROTOCOLS: ClassVar = {
        "fixed": Protocol(
            schedule="sqrt", warmup=500, learning_rates=(5e-3, 2e-3, 1e-3, 5e-4, 2e-4),
            batch_size=256, batch_seconds=800.0, accumulate=1, clip=1.0, steps=20_000,
            eval_every=500, patience=8, sampler="bucket",
        ),
        "superb": Protocol(
            schedule="sqrt-cliff", warmup=10_000, batch_size=1_000, batch_seconds=200.0,
            accumulate=8, clip=10.0, steps=32_000, eval_every=2_000, sampler="bucket",
            ties="first",
        ),
    }  # fmt: skip
    HAS_SMALL_HEAD = True
    DEV_BY: ClassVar[Literal["outputs", "infer"]] = "infer"

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._superb = self.protocol_name == "superb"
        self._letters: Letters | None = None
        self._tokenizer: Tokenizer = "13a"
        self._dev: frozenset[str] = frozenset()

    @property
    def letters(self) -> Letters:
        """The symbols of targets.

        Raises:
            RuntimeError: nothing was loaded.
        """
        self.loaded  # noqa: B018 - raises where nothing was loaded
        assert self._letters is not None
        return self._letters

    # -- data -------------------------------------------------------------------------------

    def load(self, utterances: Sequence[Utterance], *, seed: int = 0) -> Data:
        """Split by speaker and check; see :meth:`~mynah.tasks.core.contract.Task.load`."""
        kept = labelled(utterances, _translation, task="st", name="translation")
        empty = [u.id for u in kept if not spelled(str(_translation(u)), pieces=self._superb)]
        if empty:
            raise DataError(f"these utterances have an empty translation: {first_few(empty)}")
        unit, unit_name = speaker_unit(kept)
        parts, note = given_or_made(
            kept, unit, unit_name=unit_name, seed=seed, take_given=self.splits == "corpus"
        )
        if self._superb:  # which takes the corpus's parts as they are
            check_disjoint(parts, lambda u: u.id, unit_name="utterance")
        else:
            check_disjoint(parts, unit, unit_name=unit_name)
        texts = {part: [str(_translation(u)) for u in parts[part]] for part in parts}
        letters = Letters.of(
            texts["train"], pieces=self._superb, limit=LIMIT if self._superb else None
        )
        self._use(letters, tokenizer_of(texts["train"]))
        self._dev = frozenset(u.id for u in parts["dev"])
        known = set(letters.symbols)
        rest = [*texts["dev"], *texts["test"]]
        lacking = {c for text in rest for c in spelled(text, pieces=self._superb)} - known
        said = {u.text for u in parts["train"]} - {None}
        again = sum(u.text in said for u in parts["test"])
        self.data = Data(
            folds={"": as_splits(parts)},
            classes=letters.symbols,
            notes=(
                note,
                f"{len(letters)} symbols"
                + (f", not in train: {first_few(sorted(lacking))}" if lacking else ""),
                f"{again} of {len(parts['test'])} test sentences are said in train too",
            ),
        )
        return self.data

    def bind(self, facts: Facts) -> None:
        """Take the upstream's facts; ``superb`` cuts the audio of all parts to 6000 frames."""
        super().bind(facts)
        if not self._superb or self.data is None:
            return
        longest = MAX_FRAMES * facts.frame_seconds

        def cut(part: Split) -> Split:
            return Split(name=part.name, utterances=[_cut(u, longest) for u in part.utterances])

        folds = {
            name: (cut(train), cut(dev), cut(test))
            for name, (train, dev, test) in self.data.folds.items()
        }
        self.data = dataclasses.replace(self.data, folds=folds)

    # -- training ---------------------------------------------------------------------------

    @property
    def outputs(self) -> int:
        """Number of symbols."""
        return len(self.letters)

    def head(self, dim: int) -> nn.Module:
        """Return the Transformer of three encoder and three decoder layers, or the small one."""
        if self.small:
            return Translator(
                dim,
                self.outputs,
                width=128,
                inner=256,
                heads=4,
                encoder_layers=2,
                decoder_layers=2,
                conv_channels=128,
                pad=PAD,
                eos=EOS,
            )
        return Translator(dim, self.outputs, pad=PAD, eos=EOS)

    def target(self, utterance: Utterance) -> list[int]:
        """Return the symbols of a translation."""
        return self.letters.encode(_translation(utterance) or "")

    def target_length(self, utterance: Utterance) -> int:
        """Return their number."""
        return len(self.target(utterance))

    def too_short(self, utterance: Utterance, frames: int) -> str | None:
        """Return a reason where the target is too long, or the source (but for ``superb``)."""
        if (length := self.target_length(utterance)) > MAX_TARGET:
            return f"a target of {length} symbols, more than {MAX_TARGET}"
        if frames > MAX_FRAMES and not self._superb:
            return f"{frames} frames, more than {MAX_FRAMES}"
        return None

    def head_inputs(self, batch: Sequence[Utterance]) -> tuple[Tensor, ...]:
        """Return the symbols before each symbol, (B, U)."""
        return (self._forced(batch)[0],)

    def _forced(self, batch: Sequence[Utterance]) -> tuple[Tensor, Tensor]:
        return teacher_forcing([self.target(u) for u in batch], eos=EOS, pad=PAD)

    def losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return smoothed cross-entropies (K, B): sums over symbols, means under ``fixed``."""
        answers_BU = self._forced(batch)[1].to(outputs.device)
        sums_KB = token_losses(outputs, answers_BU, SMOOTHING).sum(dim=2)
        return sums_KB if self._superb else sums_KB / (answers_BU != PAD).sum(dim=1)

    def dev_losses(self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]) -> Tensor:
        """Return cross-entropies per symbol (K, B), not smoothed."""
        answers_BU = self._forced(batch)[1].to(outputs.device)
        return token_losses(outputs, answers_BU).sum(dim=2) / (answers_BU != PAD).sum(dim=1)

    # -- scoring ----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return the symbols and BLEU's tokenizer."""
        return {"symbols": list(self.letters.symbols), "tokenizer": self._tokenizer}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take them."""
        self._use(Letters(state["symbols"], pieces=self._superb), state["tokenizer"])
        self.data = Data(folds={}, classes=tuple(state["symbols"]))

    def _use(self, letters: Letters, tokenizer: Tokenizer) -> None:
        self._letters = letters
        self._tokenizer = tokenizer

    def decode(
        self, outputs: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> Sequence[str]:
        """Refuse: outputs of training were computed with the reference before their eyes.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("a translation is searched for, with infer: it is not in the outputs")

    def infer(
        self, probe: nn.Module, features: Tensor, lengths_B: Tensor, batch: Sequence[Utterance]
    ) -> list[str]:
        """Return the best translation of each item, by beam search.

        Of dev, a head that gives NaN translates to nothing: its loss, which is NaN too, rules it
        out.

        Raises:
            ValueError: of test, a head that gives NaN.
        """
        is_dev = all(u.id in self._dev for u in batch)
        beam = BEAMS[self.protocol_name]["dev" if is_dev else "test"]
        features_BTD = probe.featurizer(features)  # type: ignore[operator]
        try:
            found = probe.head.beam_search(features_BTD, lengths_B, beam, MAX_SYMBOLS)  # type: ignore[operator,union-attr]
        except ValueError:
            if not is_dev:
                raise
            found = [[]] * len(batch)
        return [self._written(symbols) for symbols in found]

    def _written(self, symbols: Sequence[int]) -> str:
        text = self.letters.decode(symbols)
        return text or UNK if self._superb else text

    def reference(self, utterance: Utterance) -> str:
        """Return the translation; under ``superb`` as its symbols spell it."""
        if self._superb:
            return self._written(self.target(utterance))
        return spelled(_translation(utterance) or "", pieces=False)

    def metrics(self) -> tuple[Metric, ...]:
        """Return BLEU and chrF."""
        return (bleu(self._tokenizer), chrf())


def _translation(utterance: Utterance) -> str | None:
    return utterance.label("translation")


def _cut(utterance: Utterance, seconds: float) -> Utterance:
    """Return the utterance, or its first seconds where it is longer."""
    if utterance.duration <= seconds:
        return utterance
    return dataclasses.replace(utterance, duration=seconds)


TASK = SpeechTranslation
