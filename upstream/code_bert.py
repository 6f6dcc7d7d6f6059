"""BERT on codes: a Transformer that fills in masked stretches of vq-wav2vec's codes.

Baevski, Schneider and Auli 2020 (arXiv 1910.05453) section 4, and Baevski and Mohamed 2020,
"Effectiveness of self-supervised pre-training for speech recognition" (arXiv 1911.03912): a frame's
codes "i-j" are a word, an utterance a sentence between <s> and </s>, and RoBERTa (arXiv 1907.11692,
fairseq's ``RobertaModel``) predicts the words of masked spans of ten. SUPERB calls it DiscreteBERT.

The vq-wav2vec that makes the codes is part of the model: frozen, in eval mode even while the
Transformer trains, always in float32 (see :mod:`mynah.upstream.vq_wav2vec`), saved with the weights.
``mynah pretrain code_bert/tiny --teacher RUN`` takes it from a run; without a teacher it has random
weights, which makes an untrained control.

Hidden states, as SUPERB counts them: the normalised sum of word and position, then the output of
each layer: 13 for base. Those of <s> and </s> are left out, so that frame t is frame t of the audio;
s3prl keeps both, and its features are two frames longer and one frame late.

Words are those of :mod:`mynah.upstream.core.masked_words`, combinations of codes in between. fairseq's
dictionary has the combinations that occurred in the training set (13.5 thousand for Gumbel codes, 23
for k-means), and others are <unk>: a checkpoint's dictionary becomes the buffer ``word_P``. Which ones
occur is not known before a pass over a corpus, so a new model has a word for every combination.

In fairseq masked spans may cover <s> and </s> and start anywhere; here they cover frames only and start
where a whole span fits, like those of wav2vec 2.0.

Variants: ``base`` is the published size on k-means codes; ``tiny`` is for the codes of
``vq_wav2vec/tiny`` and has a convolution for positions, because learned position vectors take longer
than minutes to find a frame's neighbours.

Shape suffixes: B batch, T frames or words, N frames or words of a ragged batch, M masked words,
D width, G groups of codes, P combinations of codes, W words of the vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mynah.upstream import vq_wav2vec
from mynah.upstream.core.contract import Batch, Loss, Upstream
from mynah.upstream.core.framenorm import valid_frames
from mynah.upstream.core.gumbel import perplexity
from mynah.upstream.core.masked_words import PAD, SPECIAL, UNKNOWN, corrupt, sentences
from mynah.upstream.core.masking import span_mask
from mynah.upstream.core.modelfolder import from_plain, plain
from mynah.upstream.core.packed_aggregator import PackedExtractor
from mynah.upstream.core.packing import Packing
from mynah.upstream.core.transformer import Encoder, EncoderConfig, PackedEncoder


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of BERT on codes; the defaults are the published base size.

    Attributes:
        coder: every setting of the vq-wav2vec that makes the codes; a teacher decides it.
        words: size of the vocabulary with the five special words; None for every combination of
            codes.
        dim: width of the Transformer.
        layers: its layers.
        heads: its attention heads.
        ffn: its inner width.
        position: ``learned`` vectors as published, or ``conv``, the convolution of wav2vec 2.0.
        pos_kernel: taps of that convolution.
        pos_groups: its groups.
        dropout: of the embedded words and of sublayer outputs.
        attention_dropout: of attention weights.
        max_positions: most words that see each other, <s> and </s> included; a longer utterance is
            cut into pieces.
        mask_prob: share of frames to mask if spans did not overlap.
        mask_length: frames of a span.
        keep_share: share of masked words that stay as they are.
        swap_share: share of masked words that become other words.
    """

    coder: dict[str, Any] = field(default_factory=lambda: plain(vq_wav2vec.CONFIGS["kmeans"]))
    words: int | None = None
    dim: int = 768  # fairseq: encoder_embed_dim
    layers: int = 12  # fairseq: encoder_layers
    heads: int = 12  # fairseq: encoder_attention_heads
    ffn: int = 3072  # fairseq: encoder_ffn_embed_dim
    position: Literal["learned", "conv"] = "learned"  # fairseq: encoder_learned_pos
    pos_kernel: int = 32
    pos_groups: int = 16
    dropout: float = 0.1  # fairseq: dropout
    attention_dropout: float = 0.1  # fairseq: attention_dropout
    max_positions: int = 2048  # fairseq: max_positions
    mask_prob: float = 0.5  # paper: 5 % of the frames start a span of 10
    mask_length: int = 10  # paper: M = 10
    keep_share: float = 0.1  # fairseq: leave_unmasked_prob
    swap_share: float = 0.1  # fairseq: random_token_prob


CONFIGS = {
    "base": Config(),
    "tiny": Config(
        coder=plain(vq_wav2vec.CONFIGS["tiny"]),
        dim=192,
        layers=3,
        heads=3,
        ffn=768,
        position="conv",
        dropout=0.05,
        attention_dropout=0.05,
        max_positions=1024,
        mask_prob=0.4,
        mask_length=5,
    ),
}


class CodeBert(Packing[PackedEncoder]):
    """A frozen coder, word and position vectors, a Transformer, and a head over the vocabulary."""

    name = "code_bert"
    least_frames = 2  # of one, the mask may hold none
    needs_teacher: ClassVar[bool] = True
    floors: Mapping[str, float] = MappingProxyType({"code_perplexity": 4.0})

    word_P: Tensor
    seen_W: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        codes = from_plain(vq_wav2vec.Config, config.coder, where="coder")
        combinations = codes.codes**codes.groups
        words = SPECIAL + combinations + 1 if config.words is None else config.words
        if not SPECIAL + 1 < words <= SPECIAL + combinations + 1:
            raise ValueError(
                f"words must be between {SPECIAL + 2} and {SPECIAL + combinations + 1} (five "
                f"special ones and {combinations} combinations of codes), got {words}"
            )
        if config.position not in ("learned", "conv"):
            raise ValueError(f"position must be 'learned' or 'conv', got {config.position!r}")
        if config.max_positions < 3:
            raise ValueError(f"max_positions must be at least 3, got {config.max_positions}")
        self.coder = vq_wav2vec.Coder(codes).requires_grad_(False).eval()
        self.dim = config.dim
        self.num_layers = config.layers + 1
        self.stride = self.coder.extractor.stride
        self.mask_word = words - 1
        self.words = nn.Embedding(words, config.dim)
        self.positions: nn.Embedding | None = None
        if config.position == "learned":
            self.positions = nn.Embedding(config.max_positions, config.dim)
            nn.init.normal_(self.positions.weight, std=0.02)
        self.encoder = Encoder(
            EncoderConfig(
                dim=config.dim,
                layers=config.layers,
                heads=config.heads,
                ffn=config.ffn,
                position="conv" if config.position == "conv" else "none",
                pos_kernel=config.pos_kernel,
                pos_groups=config.pos_groups,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
            )
        )
        self.head = nn.Sequential(
            nn.Linear(config.dim, config.dim), nn.GELU(), nn.LayerNorm(config.dim)
        )
        self.head_bias_W = nn.Parameter(torch.zeros(words))
        nn.init.normal_(self.words.weight, std=0.02)
        with torch.no_grad():
            self.words.weight[PAD].zero_()
        word_P = torch.arange(SPECIAL, SPECIAL + combinations)
        self.register_buffer("word_P", word_P.where(word_P < self.mask_word, UNKNOWN))
        self.register_buffer("seen_W", torch.zeros(words, dtype=torch.int64))
        self._packed_coder: PackedExtractor | None = None

    # -- words --------------------------------------------------------------------------------

    def num_frames(self, n_samples: int) -> int:
        """Return the exact number of frames; fewer samples than one frame sees count as one.

        Raises:
            ValueError: no samples.
        """
        return self.coder.extractor.num_frames(n_samples)

    @torch.no_grad()
    def frame_words(self, wavs: Sequence[Tensor]) -> list[Tensor]:
        """Return the word of each frame of each utterance, int64 (T,)."""
        if self._packed_coder is None:
            self._packed_coder = PackedExtractor(self.coder.extractor, dtype=torch.float32)
        found = []
        with torch.autocast(self.device.type, enabled=False):  # the same words as in inference
            for wav in wavs:
                codes_TG = self.coder.quantizer.choose(self._packed_coder(wav))
                combination_T = torch.zeros_like(codes_TG[:, 0])
                for code_T in codes_TG.unbind(dim=1):  # "i-j" is number i V + j
                    combination_T = combination_T * self.coder.quantizer.codes + code_T
                found.append(self.word_P[combination_T])
        return found

    def embed(self, pieces: Sequence[Tensor]) -> Tensor:
        """Return word vectors, with learned positions added, of pieces laid end to end, (N, D)."""
        x_ND: Tensor = self.words(torch.cat(list(pieces)))
        if self.positions is not None:
            place_N = torch.cat([torch.arange(len(p), device=p.device) for p in pieces])
            x_ND = x_ND + self.positions(place_N)
        return x_ND

    # -- frozen features ----------------------------------------------------------------------

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the embedded words and the output of each layer, float32 (N, D)."""
        encoder = self.packed()
        with torch.no_grad():
            pieces, frame_N = sentences(self.frame_words(wavs), longest=self.config.max_positions)
            x_ND = self.embed(pieces).float()
        for state_ND in encoder(x_ND, [len(piece) for piece in pieces]):
            yield state_ND[frame_N]

    def _pack(self, dtype: torch.dtype) -> PackedEncoder:
        return PackedEncoder(self.encoder, dtype=dtype)

    def weights_changed(self) -> None:
        """Forget the coder's packed weights, and renew the others."""
        self._packed_coder = None
        super().weights_changed()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the packed weights."""
        return {**super().__getstate__(), "_packed_coder": None}

    def train(self, mode: bool = True) -> Self:
        """Switch training mode of all but the coder."""
        super().train(mode)
        self.coder.eval()
        return self

    # -- pretraining --------------------------------------------------------------------------

    @classmethod
    def adopt_config(cls, config: Config, teacher: Upstream) -> Config:
        """Return the config with the teacher's settings as those of the coder.

        Raises:
            ValueError: the teacher is no vq_wav2vec.
        """
        return dataclasses.replace(config, coder=plain(_quantising(teacher).config))

    def take_teacher(self, teacher: Upstream) -> None:
        """Copy the weights of the vq_wav2vec that makes the codes.

        Raises:
            ValueError: the teacher is no vq_wav2vec, or one with other settings.
        """
        given = _quantising(teacher)
        if plain(given.config) != self.config.coder:
            raise ValueError(
                "the teacher's settings are not those of this model's coder: let adopt_config "
                "make the config"
            )
        self.coder.load_state_dict(given.coder.state_dict())
        self._packed_coder = None

    def loss(self, batch: Batch) -> Loss:
        """Return the cross-entropy of the masked words, averaged over them, in nats.

        ``parts`` holds ``prior`` too, the same for predicting each word by how often it was seen in
        training so far: a model that is not below it has learnt nothing from the context; and
        ``code_perplexity``, exp(entropy) of the batch's words.
        """
        words = self.frame_words(batch.wavs())
        mask_BT = span_mask(
            torch.tensor([len(word_T) for word_T in words]),
            prob=self.config.mask_prob,
            length=self.config.mask_length,
            generator=batch.generator,
            min_spans=1,
            same_count=False,
        )
        masks = [row[: len(word_T)] for row, word_T in zip(mask_BT, words, strict=True)]
        return self.fill_in(words, masks, generator=batch.generator)

    def fill_in(
        self, words: Sequence[Tensor], masks: Sequence[Tensor], *, generator: torch.Generator
    ) -> Loss:
        """Return the objective for given masks.

        Args:
            words: the word of each frame, from :meth:`frame_words`.
            masks: true where a frame is to be predicted, bool (T,); at least one is.
            generator: decides which masked words become <mask>, another word, or stay.
        """
        device = self.words.weight.device
        word_N, mask_N = torch.cat(list(words)), torch.cat(list(masks)).to(device)
        changed = self.corrupted(word_N, mask_N, generator).split([len(word_T) for word_T in words])
        pieces, frame_N = sentences(changed, longest=self.config.max_positions)
        counts = [len(piece) for piece in pieces]
        valid_BT = valid_frames(counts, device)
        x_BTD = nn.utils.rnn.pad_sequence(self.embed(pieces).split(counts), batch_first=True)
        last_BTD = self.encoder(x_BTD, valid_BT)[-1]
        last_ND = last_BTD.flatten(0, 1) if valid_BT is None else last_BTD[valid_BT]
        hidden_MD = self.head(last_ND[frame_N][mask_N])
        logits_MW = F.linear(hidden_MD, self.words.weight, self.head_bias_W).float()
        wanted_M = word_N[mask_N]
        total = F.cross_entropy(logits_MW, wanted_M)
        count_W = word_N.bincount(minlength=len(self.seen_W))
        guess_W = (self.seen_W + 1) / (self.seen_W + 1).sum()
        parts = {
            "masked": total.detach(),
            "prior": -guess_W[wanted_M].log().mean(),
            "accuracy": (logits_MW.argmax(dim=1) == wanted_M).float().mean(),
            "code_perplexity": perplexity(count_W[None] / len(word_N)),
        }
        if self.training:
            self.seen_W += count_W
        return Loss(total=total, parts=parts, weight=float(len(wanted_M)))

    def corrupted(self, word_N: Tensor, mask_N: Tensor, generator: torch.Generator) -> Tensor:
        """Return the words (N,) that the Transformer sees where some are to be predicted."""
        config: Config = self.config
        shares = (config.keep_share, config.swap_share)
        return corrupt(word_N, mask_N, self.mask_word, *shares, generator=generator)


def _quantising(teacher: Upstream) -> vq_wav2vec.VqWav2Vec:
    if not isinstance(teacher, vq_wav2vec.VqWav2Vec):
        raise ValueError(
            f"code_bert learns on the codes of a vq_wav2vec, got {teacher.name!r} as teacher: "
            "pretrain vq_wav2vec/tiny or read a checkpoint of one"
        )
    return teacher


MODEL = CodeBert
