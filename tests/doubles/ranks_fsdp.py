"""``torchrun ranks_fsdp.py CORPUS OUT [LAYERDROP]``: runs of small models, sharded and not.

With LAYERDROP one model that skips layers, sharded, stopped and resumed, and whole with the same draws.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import runs
import torch

from mynah.recipes import pretrain
from mynah.recipes.training.distributed import World

corpus, out, *dropping = sys.argv[1:]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")


def run(name, model, *overrides, fsdp=True, **options):
    given = (*runs.SMALL[model], f"train.fsdp={fsdp}", *overrides)
    return pretrain.main(
        runs.arguments(Path(corpus), Path(f"{out}-{name}"), *given, model=model, **options)
    )


if dropping:
    model = "data2vec/tiny"
    layers = (f"model.layerdrop={dropping[0]}", "train.accumulate=2")
    assert run("sharded", model, *layers) == 0
    assert run("again", model, *layers, minutes=1e-6) == 75
    assert run("again", model, *layers, resume=True) == 0
    assert run("ddp", model, *layers, fsdp=False) == 0  # each process skips layers of its own
    wrap = World.wrap

    def whole(self, upstream, *, fsdp):
        assert fsdp
        return wrap(self, upstream)

    World.wrap = whole
    assert run("whole", model, *layers) == 0
    sys.exit()
for model in runs.SMALL:
    name = model.partition("/")[0]
    assert run(name, model) == 0
    assert run(f"{name}-again", model, minutes=1e-6) == 75  # once more, stopped and resumed
    assert run(f"{name}-again", model, resume=True) == 0
    assert run(f"{name}-ddp", model, fsdp=False) == 0
assert run("both", "mockingjay/tiny", "train.checkpoint_activations=true") == 0
