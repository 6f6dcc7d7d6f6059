"""The server round the demo's page: what it refuses, what it leaves behind, what it tells of errors."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'mynah[demo]'")
sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from demo_server import Served, serving
from gallery_corpus import write_gallery
from voices import RATE, voice

from mynah.recipes import demo
from mynah.recipes.demo_page import server
from mynah.recipes.demo_page.machines import Machines
from mynah.recipes.demo_page.recordings import MAX_BYTES


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    corpus = write_gallery(tmp_path_factory.mktemp("data") / "three")
    with serving(corpus.folder) as found:
        yield found
    assert not found.folder.exists(), "uploads and results are gone"


def values(served: Served, **given: Any) -> list[Any]:
    """Return what the page sends when Convert is pressed: its own first choices, and what is given."""
    out = []
    for component in served.inputs["convert-result"]:
        props = component["props"]
        out.append(given.get(props.get("elem_id") or "", props.get("value")))
    return out


def source(seconds: float = 1.0) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, voice(120.0, seconds, 3), RATE, format="WAV")
    return buffer.getvalue()


def raw(served: Served, target: str, *, host: str = "127.0.0.1") -> int:
    """Ask for an address as it is written, which clients would mend; returns the status."""

    async def asking() -> int:
        address = httpx.URL(served.url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        line = await reader.readline()
        writer.close()
        return int(line.split()[1])

    return asyncio.run(asking())


class Links(HTMLParser):
    """Every address that a page names."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe", "audio"):
            self.found += [v for k, v in attrs if k in ("src", "href") and v]


def test_the_page_names_no_other_server(served: Served) -> None:
    got = httpx.get(served.url)
    assert got.status_code == 200
    links = Links()
    links.feed(got.text)
    assert links.found
    assert not [link for link in links.found if "//" in link]
    theme = httpx.get(f"{served.url}/theme.css").text
    assert "url(" not in theme.replace('url("data:', "")
    assert "@import" not in theme
    policy = got.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy
    assert got.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "10.0.0.7"])
def test_foreign_hosts_are_refused(served: Served, host: str) -> None:
    assert raw(served, "/", host=host) == 400


def test_other_sites_may_not_ask(served: Served) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        got = httpx.post(f"{served.url}/gradio_api/queue/join", json={}, headers={"origin": origin})
        assert got.status_code == 403
        assert "access-control-allow-origin" not in got.headers


@pytest.mark.parametrize(
    "target",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../etc/passwd",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file=https://evil.example/",
        "/gradio_api/file=FOLDER/../../etc/passwd",
        "/gradio_api/file=FOLDER/%2e%2e/%2e%2e/etc/passwd",
        "/gradio_api/file=CORPUS",
        "/static/../../../../etc/passwd",
        "/assets/..%2f..%2f..%2fetc/passwd",
    ],
)
def test_no_file_outside_the_pages_folder_is_served(served: Served, target: str) -> None:
    corpus = next(iter(served.studio.gallery.examples.values())).path
    target = target.replace("FOLDER", str(served.folder)).replace("CORPUS", corpus)
    assert raw(served, target) in (400, 403, 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/info"), ("GET", "/gradio_api/openapi.json"), ("GET", "/config"),
        ("GET", "/monitoring"), ("GET", "/gradio_api/runs"), ("GET", "/gradio_api/proxy=http://x/"),
        ("POST", "/gradio_api/run/predict"), ("POST", "/gradio_api/vibe-edit/"), ("GET", "/docs"),
        ("POST", "/gradio_api/component_server"), ("POST", "/login"), ("DELETE", "/"),
    ],
)  # fmt: skip
def test_addresses_that_the_page_does_not_use_are_closed(
    served: Served, method: str, path: str
) -> None:
    assert httpx.request(method, f"{served.url}{path}").status_code == 404


def test_large_uploads_are_refused(served: Served) -> None:
    before = sum(f.stat().st_size for f in served.folder.rglob("*") if f.is_file())
    body = b"\0" * (MAX_BYTES + 2**20)
    got = httpx.post(
        f"{served.url}/gradio_api/upload", files={"files": ("a.wav", body)}, timeout=60
    )
    assert got.status_code == 413
    slightly = b"\0" * (MAX_BYTES + 1)
    got = httpx.post(
        f"{served.url}/gradio_api/upload", files={"files": ("a.wav", slightly)}, timeout=60
    )
    assert got.status_code == 413
    after = sum(f.stat().st_size for f in served.folder.rglob("*") if f.is_file())
    assert after == before


def test_bodies_of_unsaid_length_are_counted(served: Served) -> None:
    def much() -> Iterator[bytes]:
        for _ in range(8):
            yield b" " * 2**16

    got = httpx.post(f"{served.url}/gradio_api/queue/join", content=much())
    assert got.status_code == 413
    assert "at most" in got.text


def test_an_upload_is_converted_to_a_wav_of_its_length(served: Served) -> None:
    mine = served.upload('<img src=x onerror="alert(1)">.wav', source(1.25))
    told = served.press("convert-result", values(served, source=mine, vocoder="griffin_lim"))
    assert told[-1]["success"]
    shown = told[-1]["output"]["data"][0]
    assert "onerror" not in shown
    assert "synthetic voice" in shown
    link = shown.split('download="your-source_to_')[0].rsplit('href="', 1)[1].split('"')[0]
    got = httpx.get(f"{served.url}/{link}")
    assert got.status_code == 200
    wav_S, rate = soundfile.read(io.BytesIO(got.content))
    assert len(wav_S) / rate == pytest.approx(1.25)


def test_a_refusal_is_text_in_the_page(served: Served) -> None:
    mine = served.upload("short.wav", source(0.2))
    told = served.press("convert-result", values(served, source=mine))
    assert told[-1]["success"]
    assert "your source lasts 0.2 s, at least 0.5 s" in told[-1]["output"]["data"][0]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "FOLDER/../../etc/passwd", "FOLDER/link", "https://evil.example/a.wav",
        "file:///etc/passwd", "relative.wav", "", 7, ["/etc/passwd"], "FOLDER/a\0b",
    ],
)  # fmt: skip
def test_files_that_were_not_uploaded_are_refused(served: Served, path: object) -> None:
    link = served.folder / "link"
    if not link.exists():
        link.symlink_to("/etc/passwd")
    if isinstance(path, str):
        path = path.replace("FOLDER", str(served.folder))
    there = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for data in (values(served, source=there), values(served, own={"deep": [there]})):
        asked = {"data": data, "fn_index": served.functions["convert-result"], "session_hash": "x"}
        got = httpx.post(f"{served.url}/gradio_api/queue/join", json=asked)
        assert got.status_code == 403
    assert not list(served.folder.rglob("*passwd*"))


def test_gradios_own_check_is_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.Guard, "inside", lambda self, path: True)
    there = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    told = served.press("convert-result", values(served, source=there))
    assert not told[-1]["success"]
    assert not list(served.folder.rglob("*passwd*"))


def test_what_is_uploaded_is_never_run(served: Served) -> None:
    svg = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    for name in ("a.svg", "a.html"):
        mine = served.upload(name, svg)
        got = httpx.get(f"{served.url}/gradio_api/file={mine['path']}")
        assert got.headers["content-security-policy"] == "default-src 'none'; sandbox"
        assert got.headers["x-content-type-options"] == "nosniff"


def test_what_is_no_request_is_refused(served: Served) -> None:
    for body in (b"", b"{", b"[" * 100_000):
        got = httpx.post(f"{served.url}/gradio_api/queue/join", content=body)
        assert got.status_code == 400


def test_a_defect_shows_no_traceback(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def convert(*_: object, **__: object) -> None:
        raise AttributeError("secret of the server")

    monkeypatch.setattr(Machines, "convert", convert)
    mine = served.upload("a.wav", source())
    told = served.press("convert-result", values(served, source=mine))
    assert not told[-1]["success"]
    text = json.dumps(told)
    assert "secret" not in text
    assert "Traceback" not in text
    assert "recipes" not in text
    assert "secret of the server" in capsys.readouterr().err, "the server's log has it"


def test_choices_are_held_against_what_is_offered(served: Served) -> None:
    told = served.press("convert-result", values(served, voices="../../etc"))
    assert not told[-1]["success"]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = os.environ.get("GRADIO_TEMP_DIR")
    with server.workplace() as folder:
        assert folder.parent == tmp_path
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        (folder / "kept").write_text("x")
    assert list(tmp_path.iterdir()) == []
    assert os.environ.get("GRADIO_TEMP_DIR") == before


def test_check_converts_an_example_and_serves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_gallery(tmp_path / "three", seconds=2.1)

    def serve(*_: object, **__: object) -> None:
        raise AssertionError("it was to serve nothing")

    monkeypatch.setattr(server, "serve", serve)
    args = demo.Args(gallery=corpus.folder, check=True, vocoder=("griffin_lim",))
    assert demo.main(args) == 0
    assert capsys.readouterr().out.startswith(
        "bob as ann by mkl and griffin_lim: 2.10 s of speech in "
    )


def test_a_taken_port_is_said(served: Served) -> None:
    port = httpx.URL(served.url).port
    assert port is not None
    with pytest.raises(ValueError, match=f"port {port} cannot be served at .*--port"):
        server.serve(None, host="127.0.0.1", port=port)  # type: ignore[arg-type]
