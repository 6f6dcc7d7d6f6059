"""``torchrun ranks.py CORPUS OUT STEPS``: pretrain ``toy``, which has an unused parameter, twice."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import runs
import torch

import mynah.upstream
from mynah.recipes import pretrain
from mynah.recipes.training import loop

mynah.upstream.__path__ = runs.with_toy()
corpus, out, steps = sys.argv[1:]
torch.set_num_threads(1)
train = loop.train


def remember(upstream, *args, world, **kwargs):
    outcome = train(upstream, *args, world=world, **kwargs)
    torch.save(upstream.state_dict(), f"{out}-rank{world.rank}-of-{world.size}.pt")
    return outcome


loop.train = remember


def run(name, **options):
    return pretrain.main(
        runs.arguments(Path(corpus), Path(name), "model.unused=true", steps=int(steps), **options)
    )


torch.distributed.init_process_group("gloo")
assert run(out) == 0
out += "-again"  # once more, stopped after a step and resumed
assert run(out, minutes=1e-6) == 75
assert run(out, resume=True) == 0
