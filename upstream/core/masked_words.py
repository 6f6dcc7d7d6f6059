"""Sentences of words, some of them masked, as RoBERTa (arXiv 1907.11692; fairseq's ``RobertaModel``) has them.

Words: 0 <s>, 1 <pad>, 2 </s>, 3 <unk>, then a model's own, then <mask>, the last.

Shape suffixes: T words of an utterance, N words of a ragged batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

BEGIN, PAD, END, UNKNOWN = range(4)
SPECIAL = 4  # words before a model's own


def sentences(words: Sequence[Tensor], *, longest: int) -> tuple[list[Tensor], Tensor]:
    """Put <s> and </s> around utterances and cut what is longer than so many words.

    Args:
        words: of each utterance, int64 (T,).
        longest: words that may see each other, <s> and </s> included.

    Returns:
        The pieces, at least one of each utterance, and which words of all pieces laid end to end
        are the utterances' own, bool (N,).
    """
    pieces, own = [], []
    for word_T in words:
        whole_T = F.pad(F.pad(word_T, (1, 0), value=BEGIN), (0, 1), value=END)
        pieces += whole_T.split(longest)
        own_T = torch.ones_like(whole_T, dtype=torch.bool)
        own_T[0] = own_T[-1] = False
        own.append(own_T)
    return pieces, torch.cat(own)


def corrupt(
    word_N: Tensor,
    mask_N: Tensor,
    mask_word: int,
    keep_share: float,
    swap_share: float,
    *,
    generator: torch.Generator,
) -> Tensor:
    """Return the words (N,) that a Transformer sees.

    Args:
        word_N: what is there, int64.
        mask_N: true where a word is to be predicted, bool.
        mask_word: <mask>, the last word.
        keep_share: share of masked words that stay.
        swap_share: share of masked words that become other words, drawn from a model's own.
        generator: CPU.
    """
    dice_N = torch.rand(len(word_N), generator=generator)
    other_N = torch.randint(SPECIAL, mask_word, (len(word_N),), generator=generator)
    dice_N, other_N = dice_N.to(word_N.device), other_N.to(word_N.device)
    swapped_N = dice_N < swap_share
    kept_N = ~swapped_N & (dice_N < swap_share + keep_share)
    new_N = torch.where(swapped_N, other_N, mask_word)
    return torch.where(mask_N & ~kept_N, new_N, word_N)
