"""Start and stop a ComfyUI that has the pack in its custom_nodes, with folders of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from . import ROOT, host_folder

_START_SECONDS = 240.0
_STOP_SECONDS = 10.0
_FOLDERS = ("custom_nodes", "models", "input", "output", "temp", "user/default")


class ComfyServer:
    """A running host, as a context manager.

    Args:
        packs: Folders that are linked into custom_nodes.
        port: 0 for a free one.
        base: Its folders; None for temporary ones that are removed at the end.
        options: More arguments of ComfyUI.
        environment: Changes of the process's environment.

    Attributes:
        url: Its address.
        base: Its folders: input, output, models ...
        start_seconds: How long it took until it answered.
    """

    def __init__(
        self,
        packs: Sequence[Path] = (ROOT,),
        *,
        port: int = 0,
        base: Path | None = None,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._temporary = base is None
        self.base = Path(tempfile.mkdtemp(prefix="livetalk-comfy-")) if base is None else base.absolute()
        self.port = port or _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start_seconds = 0.0
        self._packs, self._options, self._environment = packs, options, environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process of the host."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; with the end of its log.
        """
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                raise RuntimeError(f"Port {self.port} is taken by another program: choose another one.")
        self._prepare()
        home = host_folder().absolute()
        command = [
            str(home / "venv" / "bin" / "python"), str(home / "host" / "main.py"), "--listen", "127.0.0.1",
            "--port", str(self.port), "--base-directory", str(self.base),
            "--database-url", f"sqlite:///{self.base}/user/comfyui.db", "--disable-auto-launch",
            *_device_options(), *self._options,
        ]  # fmt: skip
        began = time.monotonic()
        self._log = (self.base / "comfy.log").open("wb")
        # Without our own PYTHONPATH and in another folder: a user's host finds the engine in the pack alone.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=subprocess.STDOUT, cwd=self.base,
            env={**inherited, **self._environment},
        )  # fmt: skip
        try:
            while not self._answers():
                if self._process.poll() is not None or time.monotonic() - began > _START_SECONDS:
                    raise RuntimeError(f"ComfyUI did not start:\n{self.log_text()[-4000:]}")
                time.sleep(0.2)
        except BaseException:
            self.stop()
            raise
        self.start_seconds = time.monotonic() - began

    def wait(self) -> None:
        """Until it ends by itself."""
        assert self._process is not None
        self._process.wait()

    def stop(self) -> None:
        """End it, politely first."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._log is not None:
            self._log.close()
        if self._temporary:
            shutil.rmtree(self.base, ignore_errors=True)

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_STOP_SECONDS)

    def log_text(self) -> str:
        """What it has printed so far."""
        log = self.base / "comfy.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def get(self, path: str, timeout: float = 30.0) -> Any:
        """JSON of a GET."""
        with urllib.request.urlopen(self.url + path, timeout=timeout) as answer:  # noqa: S310 - our own server
            return json.loads(answer.read())

    def post(self, path: str, data: Any = None) -> Any:
        """JSON of a POST; None where the answer is empty."""
        body = json.dumps({} if data is None else data).encode()
        request = urllib.request.Request(  # noqa: S310 - our own server
            self.url + path, body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30.0) as answer:  # noqa: S310 - our own server
            text = answer.read()
        return json.loads(text) if text else None

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> None:
        for name in _FOLDERS:
            (self.base / name).mkdir(parents=True, exist_ok=True)
        # Else the page opens with the template browser over the canvas.
        settings = self.base / "user" / "default" / "comfy.settings.json"
        settings.write_text(json.dumps({"Comfy.TutorialCompleted": True}))
        for pack in self._packs:
            link = self.base / "custom_nodes" / ("livetalk" if pack == ROOT else pack.name)
            if not link.exists():
                link.symlink_to(pack, target_is_directory=True)

    def _answers(self) -> bool:
        try:
            self.get("/system_stats", timeout=2.0)
        except OSError:
            return False
        return True


def _device_options() -> list[str]:
    import torch

    return [] if torch.cuda.is_available() else ["--cpu"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
