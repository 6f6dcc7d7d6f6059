"""The server round the page: only this page's requests, only to this host, nothing left behind.

gradio answers many addresses that this page does not use (its API's description, monitoring, proxies,
code of its own editor). A guard in front of it lets through what the page asks for and nothing else,
refuses bodies over the limit while they are read, and sets headers under which a browser asks nobody
but this server. Foreign ``Host`` headers are refused, so that another page cannot reach this one by a
name that it points here (DNS rebinding).

A request names the files that it is about by their paths on the server. A page that is mounted rather
than launched takes any such path, copies the file and serves it (gradio 6.31), and fetches what is a
URL; so the guard refuses every path outside the page's folder, and the page is told that it is
launched, which turns on gradio's own check.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from mynah.recipes.demo_page.recordings import MAX_BYTES

if TYPE_CHECKING:
    import gradio
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

Made = TypeVar("Made")

LOOPBACK = ("127.0.0.1", "localhost")
QUEUE = 8
"""Requests that may wait; more are told to come back later."""
KEPT = 3600
"""Seconds after which uploads and results are deleted; all are when the server stops."""
MAX_MESSAGE = 2**18
"""Bytes of a request that is no upload."""

_ALLOWED = {
    "GET": re.compile(
        r"/(?:|theme\.css|favicon\.ico|manifest\.json|robots\.txt|(?:assets|static)/[\w./-]+|"
        r"gradio_api/(?:queue/data|upload_progress|heartbeat/\w+|file=.+))"
    ),
    "POST": re.compile(r"/gradio_api/(?:upload|queue/join|cancel|reset)"),
}
_ALLOWED["HEAD"] = _ALLOWED["GET"]
_UPLOAD, _JOIN, _FILE = "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/file="

# gradio's own scripts stand in its page and compile templates, hence the two words 'unsafe-...';
# nothing is loaded from, or sent to, anywhere else
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
        "font-src 'self' data:; connect-src 'self' blob:; worker-src 'self' blob:; "
        "manifest-src 'self'; base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
}


_FILE_POLICY = b"default-src 'none'; sandbox"
"""For files, which somebody may have uploaded: whatever they are, nothing in them is run."""


class TooLargeError(Exception):
    """A request's body went over the limit."""


class Guard:
    """ASGI middleware: an allowlist of addresses and files, a limit on bodies, headers for browsers.

    Args:
        app: what is guarded.
        folder: of the files that requests may be about.
    """

    def __init__(self, app: ASGIApp, *, folder: Path) -> None:
        self.app = app
        self.folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or hand it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page has no websockets
            await send({"type": "websocket.close", "code": 1008})
            return
        allowed = _ALLOWED.get(scope["method"])
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        if allowed is None or not allowed.fullmatch(scope["path"]):
            await _answer(send, 404, "there is nothing at this address")
            return
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            await _answer(send, 403, "another site's pages may not ask this server")
            return
        most = MAX_BYTES + MAX_MESSAGE if scope["path"] == _UPLOAD else MAX_MESSAGE
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > most:
            await _answer(send, 413, f"at most {most} bytes are taken")
            return
        if scope["path"] == _JOIN:
            whole = await self._read(receive, send, most)
            if whole is None:
                return
            receive = whole
        await self._limited(scope, receive, send, most)

    async def _read(self, receive: Receive, send: Send, most: int) -> Receive | None:
        """Read a request to convert; returns it to be read again, or answers it and returns None."""
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False) and message["type"] == "http.request"
            if len(body) > most:
                await _answer(send, 413, f"at most {most} bytes are taken")
                return None
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            await _answer(send, 400, "this is not a request of the page")
            return None
        if any(not self.inside(path) for path in paths_in(asked)):
            await _answer(send, 403, "only files that were uploaded here can be converted")
            return None
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return pending.pop() if pending else await receive()

        return again

    def inside(self, path: object) -> bool:
        """Return whether a path is one of a file in the folder, wherever links lead."""
        if not isinstance(path, str) or "\0" in path:
            return False
        return Path(path).is_absolute() and Path(path).resolve().is_relative_to(self.folder)

    async def _limited(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        """Hand a request on, and count what is read of it: lengths may be left unsaid."""
        seen = 0
        started = False
        policy = _FILE_POLICY if scope["path"].startswith(_FILE) else None

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:
                raise TooLargeError
            return message

        async def headed(message: Message) -> None:
            nonlocal started
            if seen > most and not started:
                return  # what the application makes of our error is not the answer
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": _with_ours(message.get("headers", ()), policy)}
            await send(message)

        with suppress(TooLargeError):
            await self.app(scope, counted, headed)
        if seen > most and not started:
            await _answer(send, 413, f"at most {most} bytes are taken")


def paths_in(asked: Any) -> Iterator[Any]:
    """Yield every ``path`` of a request's JSON, however deep."""
    waiting = [asked]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if one.get("path") is not None:
                yield one["path"]
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": _with_ours(headers)})
    await send({"type": "http.response.body", "body": text.encode()})


def _with_ours(headers: Any, policy: bytes | None = None) -> list[tuple[bytes, bytes]]:
    ours = {k.encode(): v.encode() for k, v in _HEADERS.items()}
    if policy is not None:
        ours[b"content-security-policy"] = policy
    return [*((k, v) for k, v in headers if k.lower() not in ours), *ours.items()]


@contextmanager
def workplace() -> Iterator[Path]:
    """Give a folder for everything that the page writes; it is removed with all that is in it.

    gradio is told of it, and told to keep to itself, by its environment variables, which it reads when
    it is imported or its page is built: so enter this first.
    """
    with tempfile.TemporaryDirectory(prefix="mynah-demo-") as made:
        name = str(Path(made).resolve())
        with _environment(
            GRADIO_TEMP_DIR=name,
            GRADIO_EXAMPLES_CACHE=str(Path(name) / "examples"),
            GRADIO_ANALYTICS_ENABLED="False",
        ):
            yield Path(name)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def in_a_loop(made: Callable[[], Made]) -> Made:
    """Return what a function makes while an event loop runs.

    Outside of one, gradio makes several while it builds, and closes none of them.
    """

    async def running() -> Made:
        return made()

    return asyncio.run(running())


def application(
    page: gradio.Blocks,
    *,
    folder: Path,
    host: str,
    port: int,
    names: Sequence[str],
    look: Mapping[str, Any],
) -> FastAPI:
    """Return the server's application, with the page mounted in it.

    Args:
        page: built by ``blocks.build``.
        folder: the workplace.
        host: that it is served at.
        port: likewise.
        names: that browsers may call the server by; a request that names another is refused with 400.
        look: theme, CSS and head of the page.
    """
    from fastapi import FastAPI
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(names), www_redirect=False),
            Middleware(Guard, folder=folder),
        ],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    in_a_loop(lambda: _mounted(app, page, host=host, port=port, look=look))
    page.has_launched = page.is_running = True
    return app


def _mounted(
    app: FastAPI, page: gradio.Blocks, *, host: str, port: int, look: Mapping[str, Any]
) -> None:
    import gradio

    page.queue(max_size=QUEUE, default_concurrency_limit=1, api_open=False)
    gradio.mount_gradio_app(  # strict CORS is its default
        app,
        page,
        path="/",
        server_name=host,
        server_port=port,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=MAX_BYTES,
        allowed_paths=[],
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        **look,
    )


def serve(app: FastAPI, *, host: str, port: int) -> None:
    """Serve until interrupted, and say where.

    Raises:
        ValueError: the port is taken, or not ours to take.
    """
    import socket

    import uvicorn

    try:
        bound = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
        )
    except OSError as error:
        raise ValueError(
            f"{host} port {port} cannot be served at ({error.strerror}): choose another with --port"
        ) from error
    with bound:
        shown = f"[{host}]" if ":" in host else host
        sys.stdout.write(f"http://{shown}:{port}/  (stop with Ctrl-C)\n")
        sys.stdout.flush()
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=3,  # pages hold a connection open
        )
        # uvicorn raises the signal that stopped it again: neither may end us before we have cleaned up
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[bound])
