"""A headless Chromium driven over a pipe (the DevTools protocol), with what the tests need of it."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PIPED = """
import os, sys
read, write = (os.dup(int(one)) for one in sys.argv[1:3])
while min(read, write) < 5:
    read, write = os.dup(read), os.dup(write)
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""  # the browser reads its orders at 3 and answers at 4

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def found() -> str | None:
    """Return the path of a Chromium, None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Chromium:
    """One page of one browser; use it as a context manager.

    Attributes:
        asked: addresses that the page asked for.
        said: errors and warnings of the page, as text.
    """

    def __init__(self, *options: str) -> None:
        self.asked: list[str] = []
        self.said: list[str] = []
        self._home = tempfile.mkdtemp(prefix="mynah-chromium-")
        there, self._write = os.pipe()
        self._read, back = os.pipe()
        command = [
            str(found()), "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio",
            "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
            "--autoplay-policy=no-user-gesture-required",
            "--remote-debugging-pipe", f"--user-data-dir={self._home}", *options, "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-c", PIPED, str(there), str(back), *command],
            pass_fds=(there, back),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(there)
        os.close(back)
        self._kept = b""
        self._number = 0
        self._session: str | None = None
        pages = self._call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in pages if one["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> "Chromium":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            self._session = None
            self._call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._home, ignore_errors=True)

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a page in a window of a size."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[theme])
        self._call("Page.navigate", url=url)

    def js(self, expression: str) -> Any:
        """Return what JavaScript gives, promises awaited."""
        got = self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in got, got["exceptionDetails"]
        return got["result"].get("value")

    def until(self, expression: str, *, seconds: float = 30.0) -> Any:
        """Wait until JavaScript gives something true, and return that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.js(expression):
                return value
            time.sleep(0.05)
        raise AssertionError(f"{expression} did not come true in {seconds:g} s; said: {self.said}")

    def click(self, expression: str) -> None:
        """Press the mouse on the middle of an element."""
        x, y = self.until(
            f"(() => {{ const e = {expression}; if (!e) return null; e.scrollIntoView({{block: 'center'}});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def give(self, selector: str, path: Path) -> None:
        """Choose a file in an input."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def picture(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        size = self._call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        got = self._call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(got["data"]))

    def _call(self, method: str, **params: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            got = self._next()
            if got.get("id") == self._number:
                assert "error" not in got, got["error"]
                return got["result"]
            self._event(got)

    def _next(self, seconds: float = 60.0) -> Any:
        while b"\0" not in self._kept:
            if not select.select([self._read], [], [], seconds)[0]:
                raise TimeoutError("the browser does not answer")
            more = os.read(self._read, 2**20)
            if not more:
                raise EOFError("the browser is gone")
            self._kept += more
        one, self._kept = self._kept.split(b"\0", 1)
        return json.loads(one)

    def _event(self, got: Any) -> None:
        name, params = got.get("method"), got.get("params", {})
        if name == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif name == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.said.append(params["entry"]["text"])
        elif name == "Runtime.exceptionThrown":
            self.said.append(str(params["exceptionDetails"]))
        elif name == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.said.append(
                str([arg.get("value", arg.get("description")) for arg in params["args"]])
            )
