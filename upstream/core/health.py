"""Whether a representation still tells frames apart, as runs watch it.

Shape suffixes: M frames of the whole batch, D width.
"""

from __future__ import annotations

from torch import Tensor


def spread(x_MD: Tensor) -> Tensor:
    """Return the mean over channels of the standard deviation over frames: 0 after a collapse.

    fairseq's ``target_var`` and ``pred_var`` of data2vec, which are deviations despite their names.
    """
    if len(x_MD) < 2:
        return x_MD.new_zeros(())
    return (x_MD.detach().float().var(dim=0) + 1e-6).sqrt().mean()
