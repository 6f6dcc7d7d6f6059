"""``torchrun ranks_fsdp.py CORPUS OUT``: runs of small models, sharded and not."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import runs
import torch

from mynah.recipes import pretrain

corpus, out = sys.argv[1:]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")


def run(name, model, *overrides, fsdp=True, **options):
    given = (*runs.SMALL[model], f"train.fsdp={fsdp}", *overrides)
    return pretrain.main(
        runs.arguments(Path(corpus), Path(f"{out}-{name}"), *given, model=model, **options)
    )


for model in runs.SMALL:
    name = model.partition("/")[0]
    assert run(name, model) == 0
    assert run(f"{name}-again", model, minutes=1e-6) == 75  # once more, stopped and resumed
    assert run(f"{name}-again", model, resume=True) == 0
    assert run(f"{name}-ddp", model, fsdp=False) == 0
assert run("both", "mockingjay/tiny", "train.checkpoint_activations=true") == 0
try:
    run("dropped", "data2vec/tiny", "model.layerdrop=0.1")
except ValueError as error:
    assert "needs model.layerdrop=0" in str(error)
else:
    raise AssertionError("layer drop was not refused")
