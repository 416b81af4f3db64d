"""A real supervisor for each test, in a directory of its own. No process outlives a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
from pathlib import Path
from typing import Any, Callable, List, Optional, TypeVar

import workhall

T = TypeVar("T")

#: How long, in seconds, a condition may take before a test gives up, on a machine that does other things too.
PATIENCE = 60.0

#: Who runs the tests may administer.
ADMIN = f"[supervisor]\nadmin = {{ users = [{os.getuid()}] }}\n"

_ROOT = Path(__file__).resolve().parents[3]
SOURCES = Path(__file__).resolve().parents[1] / "src"


def binary() -> str:
    """The supervisor: WORKHALL_BIN, else what cargo has built last."""
    if "WORKHALL_BIN" in os.environ:
        return os.environ["WORKHALL_BIN"]
    built = [path for path in (_ROOT / "target" / profile / "workhall" for profile in ("debug", "release")) if path.exists()]
    if not built:
        raise RuntimeError("there is no workhall: run `cargo build`, or set WORKHALL_BIN")
    return str(max(built, key=lambda path: path.stat().st_mtime))


class Supervisor:
    """`workhall serve`, and what its workers run. `$python` in a configuration is an interpreter that finds the library."""

    def __init__(self, config: str = "") -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="workhall-py-")
        self.directory = Path(self._directory.name)
        self.socket = str(self.directory / "s")
        self._config = self.directory / "workhall.toml"
        self._config.write_text(config)
        self._log = self.directory / "log"
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self._clients: List[workhall.Client] = []

    def worker(self, name: str, program: str, more: str = "") -> None:
        """A class whose workers execute this program, written in Python."""
        path = self.directory / f"{name}.py"
        path.write_text("from workhall import worker\nimport workhall\n" + textwrap.dedent(program))
        with self._config.open("a") as config:
            config.write(
                f'[class.{name}]\nexec = ["{sys.executable}", "{path}"]\n'
                f'environment = {{ PYTHONPATH = "{SOURCES}" }}\ndirectory = "{self.directory}"\n{more}\n'
            )

    def start(self) -> "Supervisor":
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [binary(), "serve", "--config", str(self._config), "--socket", self.socket],
                stderr=log,
                stdout=log,
                env={key: value for key, value in os.environ.items() if not key.startswith("WORKHALL_")},
            )
        until("the supervisor is ready", lambda: "ready" in self._log.read_text() or not self.lives())
        if not self.lives():
            raise RuntimeError(f"the supervisor does not start: {self._log.read_text()}")
        return self

    def lives(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def client(self, **options: Any) -> workhall.Client:
        client = workhall.Client(self.socket, **options)
        self._clients.append(client)
        return client

    def cli(self, *args: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [binary(), *args, "--socket", self.socket], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
        )

    def kill(self) -> None:
        """The sudden death of the supervisor."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        for client in self._clients:
            client.close()
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE)
        self._directory.cleanup()


def until(what: str, is_so: Callable[[], T]) -> T:
    """Waits for a condition, and returns what it says."""
    deadline = time.monotonic() + PATIENCE
    while True:
        value = is_so()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {PATIENCE:g}s: {what}")
        time.sleep(0.005)


def lives(pid: int) -> bool:
    """Whether there is a process that is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class TestCase(unittest.TestCase):
    """A test with supervisors, which are stopped at its end."""

    def supervisor(self, config: str = "") -> Supervisor:
        supervisor = Supervisor(config)
        self.addCleanup(supervisor.stop)
        return supervisor

    def with_worker(self, program: str, more: str = "", config: str = "") -> Supervisor:
        """One whose workers `w` and `w/…` execute this program."""
        supervisor = self.supervisor(config)
        supervisor.worker("w", program, more)
        return supervisor.start()
