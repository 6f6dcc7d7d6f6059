"""``mynah demo``: a web page for voice conversion, on this machine.

Speak, upload or take an example; choose a voice of a prepared corpus, or record one that you may
imitate; hear what comes out beside source and target, see it, and see what was measured. After ``make
mini`` it needs no argument. It asks no other machine for anything and keeps nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import UseAppendAction

if TYPE_CHECKING:
    import gradio

    from mynah.recipes.demo_page.studio import Studio


@dataclass(frozen=True, kw_only=True)
class Args:
    """Serve a page on which voices are converted and compared."""

    gallery: Path | None = None
    """Prepared corpus whose speakers can be targets; default: exp/mini/corpus, which 'make mini'
    makes."""
    model: Annotated[tuple[Path, ...], UseAppendAction] = ()
    """Run of a trained converter (mynah pretrain vc/...), offered beside mkl, knn and stats;
    repeatable."""
    models: Path | None = None
    """Folder in which runs of trained converters are looked for."""
    vocoder: Annotated[tuple[str, ...], UseAppendAction] = ()
    """Vocoder to offer first, a name or a trained one's folder; repeatable."""
    asv: Path | None = None
    """Trained head of speaker verification, by which likeness is measured."""
    asr: Path | None = None
    """Trained head that writes phones or letters, by which what is left of the words is measured."""
    upstream: str | None = None
    """Spec of the heads' upstream, where it is no longer what their files say."""
    device: str = "cpu"
    """Where the heads' upstream runs."""
    host: str = "127.0.0.1"
    """Address to serve at; others than this machine's own need --allow-remote."""
    port: int = 7860
    """Port to serve at."""
    allow_remote: bool = False
    """Let other machines use the page: there is no password, and everything said to it is heard
    here."""
    name: Annotated[tuple[str, ...], UseAppendAction] = ()
    """With --allow-remote: name or address by which browsers may call this machine; repeatable."""
    check: bool = False
    """Build the page, convert one example, serve nothing."""


def names_of(args: Args) -> tuple[str, ...]:
    """Return the names by which browsers may call the server.

    Raises:
        ValueError: an address that other machines can reach, and nobody allowed that or said by which
            name.
    """
    from mynah.recipes.demo_page.server import LOOPBACK

    if not 0 < args.port < 65536:
        raise ValueError(f"--port must be between 1 and 65535, got {args.port}")
    if args.host in LOOPBACK:
        if args.name and not args.allow_remote:
            raise ValueError("--name is for other machines: it needs --allow-remote")
        return (*LOOPBACK, *args.name)
    if not args.allow_remote:
        raise ValueError(
            f"{args.host} may be reached by other machines, and the page has no password: say "
            f"--allow-remote if that is wanted, or serve at {LOOPBACK[0]}"
        )
    everywhere = args.host in ("0.0.0.0", "::")
    if everywhere and not args.name:
        raise ValueError(
            f"{args.host} is every address of this machine: say by which name browsers will call "
            "it, --name HOST (others are refused)"
        )
    return (*LOOPBACK, *args.name, *(() if everywhere else (args.host,)))


def studio_of(args: Args, folder: Path) -> Studio:
    """Return voices, methods and judges as the arguments say.

    Raises:
        FileNotFoundError, LookupError, ValueError, BadDataError: what was named is not there or
            cannot be used.
    """
    from mynah.recipes.demo_page import gallery, machines, measures
    from mynah.recipes.demo_page.studio import Studio

    models = [*args.model, *(machines.found_in(args.models) if args.models else ())]
    return Studio(
        folder=folder / "takes",
        gallery=gallery.open_gallery(args.gallery),
        machines=machines.Machines(models, args.vocoder),
        ears=measures.open_ears(args.asr, args.asv, upstream=args.upstream, device=args.device),
    )


def page_of(studio: Studio) -> gradio.Blocks:
    """Return the page.

    Raises:
        ValueError: gradio is not installed.
    """
    try:
        import gradio  # noqa: F401  asked for here, where its absence can be explained
    except ImportError as error:
        raise ValueError("the page needs gradio: pip install 'mynah[demo]'") from error
    from mynah.recipes.demo_page import blocks

    return blocks.build(studio)


def checked(studio: Studio) -> str:
    """Convert the first example into a voice of another speaker; returns what came of it.

    Raises:
        RefusedError: the example cannot be converted.
    """
    from mynah.recipes.demo_page import recordings

    u = next(iter(studio.gallery.examples.values()))
    key = next(key for key in studio.gallery.voices if key != u.speaker)
    machines = studio.machines
    source = recordings.of_utterance(u, name=u.speaker or u.id)
    method, vocoder = next(iter(machines.methods)), next(iter(machines.vocoders))
    take = studio.sitting(source, studio.voice(key)).take(method, vocoder)
    return (
        f"{source.name} as {key} by {method} and {vocoder}: {take.made.seconds:.2f} s of speech in "
        f"{take.spent:.2f} s, {len(studio.gallery.voices)} voices, {len(machines.methods)} methods"
    )


def main(args: Args) -> int:
    """Serve until interrupted.

    Raises:
        FileNotFoundError, LookupError, ValueError, BadDataError: as :func:`studio_of`.
    """
    from mynah.recipes.demo_page import server

    names = names_of(args)
    with server.workplace() as folder:
        studio = studio_of(args, folder)
        page = page_of(studio)
        from mynah.recipes.demo_page.blocks import look

        app = server.application(
            page, folder=folder, host=args.host, port=args.port, names=names, look=look()
        )
        if args.check:
            sys.stdout.write(f"{checked(studio)}\n")
            return 0
        server.serve(app, host=args.host, port=args.port)
    return 0
