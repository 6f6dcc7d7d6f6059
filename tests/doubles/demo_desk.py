"""The desk of the demo's page, and what is asked of it."""

from __future__ import annotations

from pathlib import Path

from mynah.recipes.demo_page import gallery, machines
from mynah.recipes.demo_page.desk import Desk
from mynah.recipes.demo_page.studio import Studio
from mynah.tasks.corpora.corpus import Corpus


def open_desk(corpus: Corpus, folder: Path) -> Desk:
    """Return a desk with a gallery of ``corpus``, whose takes go to ``folder``."""
    studio = Studio(
        folder=folder,
        gallery=gallery.open_gallery(corpus.folder),
        machines=machines.Machines(),
    )
    return Desk(studio)


def asked(desk: Desk, **more: object) -> dict[str, object]:
    """Return what the page asks when the first example and a voice of the gallery are chosen."""
    key = next(iter(desk.studio.gallery.examples))
    plain = {
        "source": desk.example(key)[0], "said": "", "kind": "gallery", "voice": "ann",
        "own": None, "consent": False, "method": "mkl", "vocoder": "griffin_lim", "semitones": 0,
    }  # fmt: skip
    return {**plain, **more}
