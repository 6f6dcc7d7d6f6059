"""``torchrun ranks.py CORPUS OUT STEPS``: pretrain ``toy``, with a parameter that gets no gradient."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import runs
import torch

import mynah.upstream
from mynah.recipes import pretrain
from mynah.recipes.training import loop

mynah.upstream.__path__ = runs.with_toy()
corpus, out, steps, *overrides = sys.argv[1:]
torch.set_num_threads(1)
train = loop.train


def remember(upstream, *args, world, **kwargs):
    outcome = train(upstream, *args, world=world, **kwargs)
    torch.save(upstream.state_dict(), f"{out}-rank{world.rank}-of-{world.size}.pt")
    return outcome


loop.train = remember
sys.exit(
    pretrain.main(
        runs.arguments(Path(corpus), Path(out), "model.unused=true", *overrides, steps=int(steps))
    )
)
