"""Shared parts of the upstreams: the contract, ragged execution, blocks, objectives' primitives."""

import os

# oneDNN keeps a compiled kernel for every matrix shape it has met, 1024 of them by default. Ragged
# batches have a new shape each time, so that cache grew with the corpus (340 MiB on an hour of
# audio); a forward needs a few dozen. oneDNN reads this when it multiplies for the first time.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
