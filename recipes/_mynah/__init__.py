"""mynah: speech self-supervised learning and its benchmark.

audio -> frozen upstream -> features kept once -> a small head per task -> a scored result.
The folders are that sentence, in order: ``mynah.upstream``, ``mynah.downstream``,
``mynah.tasks``, ``mynah.recipes``. Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"
