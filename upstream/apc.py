"""APC: autoregressive predictive coding, a unidirectional GRU that foretells the spectrum.

Chung, Hsu, Tang and Glass 2019, "An unsupervised autoregressive model for speech representation
learning" (arXiv 1904.03240). From the frames up to t the model predicts frame t + n; with n > 1 it
cannot just copy and has to know what is being said. The base is the model behind SUPERB's ``apc``
row: 3 GRUs of 512 units with residual connections on 80 normalised log-mel features, n = 5.

VQ-APC (Chung, Tang and Glass 2020, "Vector-quantized autoregressive predictive coding", arXiv
2005.08392) predicts from codes: what comes out of the last GRU is replaced by one of V vectors per
group of units, chosen with Gumbel noise in training and by the largest logit otherwise. The paper
tries codes after any layer; this is s3prl's form. The loss has no further term.

Hidden states, as SUPERB counts them: the output of each GRU after its residual connection, before
any quantisation.

Variants: ``base`` is SUPERB's ``apc``; ``vq`` is s3prl's VQ-APC, one group of 512 codes; ``tiny``
and ``tiny-vq`` have 20 ms frames and learn in minutes on a CPU.

The model looks only backwards, so an utterance's frames never see its neighbours or any padding:
training pads, and frozen inference packs what is left of the batch at each time step.

Shape suffixes: B batch, T frames, N frames of the whole batch laid end to end, X frames that are
predicted from, D width, M features.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_sequence

from mynah.upstream.core import mel
from mynah.upstream.core.contract import Batch, Loss, Upstream
from mynah.upstream.core.gumbel_groups import GumbelGroups
from mynah.upstream.core.health import spread
from mynah.upstream.core.packed_linear import compute_dtype
from mynah.upstream.core.recurrent import pack_order, recurrent_dtype
from mynah.upstream.core.select import counted


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of APC; the defaults are those of SUPERB's ``apc``.

    Attributes:
        num_mels: mel filters of the input.
        stack: consecutive 10 ms frames joined into one step of the model.
        width: GRU units.
        layers: number of GRUs.
        dropout: after each GRU.
        shift: how many steps ahead the prediction is.
        codes: number of codes of each group of units of the last GRU; none: no quantisation.
        code_dims: units of each group, in all as many as ``width``.
        gumbel_temperature: of the choice of codes in training.
        loss_over_padding: average the loss over the padded frames of a batch too, as s3prl does;
            the loss of an utterance then depends on the longest of its batch.
    """

    num_mels: int = 80  # s3prl: feat_dim
    stack: int = 1
    width: int = 512  # s3prl: hidden_size
    layers: int = 3  # s3prl: num_layers
    dropout: float = 0.1  # s3prl: dropout
    shift: int = 5  # s3prl: n_future
    codes: tuple[int, ...] = ()  # s3prl: vq.codebook_size
    code_dims: tuple[int, ...] = ()  # s3prl: vq.code_dim
    gumbel_temperature: float = 0.5  # s3prl: vq.gumbel_temperature
    loss_over_padding: bool = False


CONFIGS = {
    "base": Config(),
    "vq": Config(codes=(512,), code_dims=(512,)),
    "tiny": Config(num_mels=40, stack=2, width=256, dropout=0.0, shift=3),
    "tiny-vq": Config(
        num_mels=40, stack=2, width=256, dropout=0.0, shift=3, codes=(64,), code_dims=(256,)
    ),
}


class Apc(Upstream):
    """GRUs over normalised filterbanks and a linear prediction of a later frame."""

    name = "apc"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        grouped = len(config.codes) == len(config.code_dims)
        if (config.codes or config.code_dims) and not (
            grouped and sum(config.code_dims) == config.width
        ):
            raise ValueError(
                "codes and code_dims must be as many, and code_dims must add up to the width "
                f"{config.width}, got codes={config.codes} and code_dims={config.code_dims}"
            )
        self.dim = config.width
        self.num_layers = config.layers
        self.stride = mel.STRIDE * config.stack
        self.front = mel.KaldiFbank(num_mels=config.num_mels, window="hamming")
        features = config.num_mels * config.stack
        widths = [features] + [config.width] * (config.layers - 1)
        self.layers = nn.ModuleList(nn.GRU(width, config.width) for width in widths)
        self.dropout = nn.Dropout(config.dropout)
        self.quantizers = GumbelGroups(
            config.codes, config.code_dims, temperature=config.gumbel_temperature
        )
        self.predict = nn.Linear(config.width, features)
        self.least_frames = config.shift + 1
        self.floors = {"embedding_std": 0.01}
        if config.codes:
            self.floors = {"code_perplexity": 2.0 * len(config.codes)}

    def num_frames(self, n_samples: int) -> int:
        """Return ceil(filterbank frames / stack)."""
        return mel.stacked(self.front.num_frames(n_samples), self.config.stack)

    def features(self, wavs: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """Return the normalised inputs (N, M) and the number of frames of each utterance."""
        x_NM, counts = self.front(wavs)
        return mel.normalised(x_NM, counts, factor=self.config.stack)

    def hidden_states(self, wavs: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the output (N, D) of each GRU after its residual connection."""
        x_NM, counts = self.features(wavs)
        place_N, sizes_T = pack_order(counts)
        place_N = place_N.to(x_NM.device)
        back_N = torch.empty_like(place_N)
        back_N[place_N] = torch.arange(len(place_N), device=place_N.device)
        x_ND = x_NM[place_N]
        for index, layer in enumerate(self.layers):
            with torch.no_grad():
                y_ND = self._inference(layer, PackedSequence(x_ND, sizes_T))
                x_ND = y_ND + x_ND if index else y_ND
                state_ND = x_ND[back_N]
            yield state_ND

    def loss(self, batch: Batch) -> Loss:
        """Return the mean absolute error of the prediction of frame t + shift.

        ``parts`` holds ``copy`` too, the error of predicting that nothing changes: a model that is
        not below it has learnt nothing. With codes it holds ``code_perplexity``, exp(entropy) of
        their use in the batch, summed over the groups; without them ``embedding_std``, the mean
        deviation over the batch of the last GRU's output.

        Raises:
            ValueError: no utterance of the batch is longer than the shift.
        """
        shift = self.config.shift
        sizes = [int(n) for n in batch.lengths_B]
        x_NM, counts = self.features([w[:n] for w, n in zip(batch.wav_BS, sizes, strict=True)])
        parts = [part for part in x_NM.split(counts) if len(part) > shift]
        if not parts:
            raise ValueError(
                f"every utterance of the batch has at most {shift} frames, too few to predict one "
                f"{shift} frames ahead: leave out the shortest ({', '.join(batch.ids[:5])} ...)"
            )
        x_TBM = pad_sequence([part[:-shift] for part in parts])
        y_TBM = pad_sequence([part[shift:] for part in parts])
        frames_B = counted([len(part) - shift for part in parts], x_TBM.device)
        valid_TB = torch.arange(len(x_TBM), device=x_TBM.device)[:, None] < frames_B
        last_TBD = x_TBM
        for index, layer in enumerate(self.layers):
            out_TBD = self.dropout(layer(last_TBD)[0])
            last_TBD = out_TBD + last_TBD if index else out_TBD
        if self.config.loss_over_padding:
            last_XD = (last_TBD * valid_TB[..., None]).flatten(0, 1)
            y_XM = y_TBM.flatten(0, 1)
        else:
            last_XD, y_XM = last_TBD[valid_TB], y_TBM[valid_TB]
        health: dict[str, Tensor] = {}
        if self.quantizers:
            last_XD, health["code_perplexity"] = self.quantizers(last_XD, generator=batch.generator)
        else:
            health["embedding_std"] = spread(last_TBD[valid_TB])
        total = (self.predict(last_XD) - y_XM).abs().mean()
        copied = (x_TBM - y_TBM)[valid_TB].abs().mean()
        logged = {"l1": total.detach(), "copy": copied, **health}
        return Loss(total=total, parts=logged, weight=float(len(y_XM)))

    def _inference(self, layer: nn.Module, packed: PackedSequence) -> Tensor:
        device = packed.data.device
        dtype = recurrent_dtype(compute_dtype(self.precision, device), device)
        if dtype != torch.float32:
            layer = copy.deepcopy(layer).to(dtype)
        out: Tensor = layer(PackedSequence(packed.data.to(dtype), packed.batch_sizes))[0].data
        return out.float()


MODEL = Apc
