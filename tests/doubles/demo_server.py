"""The demo's page, served in a thread at a port of its own."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from mynah.recipes import demo
from mynah.recipes.demo_page import server
from mynah.recipes.demo_page.studio import Studio


@dataclass
class Served:
    """A page that is being served."""

    url: str
    folder: Path
    studio: Studio
    functions: dict[str, int]  # name of a button's result -> index of its function
    inputs: dict[str, list[dict[str, Any]]]  # likewise -> components whose values it is sent

    def press(self, result: str, values: list[Any]) -> list[dict[str, Any]]:
        """Press a button as the page does; returns the messages of the server."""
        session = uuid.uuid4().hex
        with httpx.Client(base_url=self.url, timeout=60) as client:
            asked = {"data": values, "fn_index": self.functions[result], "session_hash": session}
            joined = client.post("/gradio_api/queue/join", json=asked)
            assert joined.status_code == 200, joined.text
            told = []
            with client.stream(
                "GET", "/gradio_api/queue/data", params={"session_hash": session}
            ) as lines:
                for line in lines.iter_lines():
                    if line.startswith("data:"):
                        told.append(json.loads(line.removeprefix("data:")))
                        if told[-1]["msg"] == "process_completed":
                            return told
        raise AssertionError("the stream ended early")

    def upload(self, name: str, body: bytes) -> dict[str, Any]:
        """Upload a file; returns what stands for it in a request."""
        got = httpx.post(f"{self.url}/gradio_api/upload", files={"files": (name, body)})
        assert got.status_code == 200, got.text
        return {"path": got.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}


@contextmanager
def serving(corpus: Path) -> Iterator[Served]:
    """Serve the page with the voices of a corpus; afterwards its folder is gone."""
    with server.workplace() as folder:
        args = demo.Args(gallery=corpus)
        studio = demo.studio_of(args, folder)
        page = demo.page_of(studio)
        from mynah.recipes.demo_page.blocks import look

        app = server.application(
            page, folder=folder, host=args.host, port=0, names=demo.names_of(args), look=look()
        )
        config = uvicorn.Config(
            app, port=0, log_level="error", ws="none", timeout_graceful_shutdown=1
        )
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run)
        thread.start()
        try:
            deadline = time.monotonic() + 60
            while not running.started:
                assert thread.is_alive(), "the server did not start"
                assert time.monotonic() < deadline, "the server did not start in a minute"
                time.sleep(0.02)
            port = running.servers[0].sockets[0].getsockname()[1]
            made = page.config
            ids = {c["id"]: c for c in made["components"]}
            functions, inputs = {}, {}
            for index, wired in enumerate(made["dependencies"]):
                names = [ids[i]["props"].get("elem_id") for i in wired["outputs"]]
                if len(names) == 1 and names[0]:
                    functions[names[0]] = wired.get("id", index)
                    inputs[names[0]] = [ids[i] for i in wired["inputs"]]
            yield Served(f"http://127.0.0.1:{port}", folder, studio, functions, inputs)
        finally:
            running.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the server did not stop"
