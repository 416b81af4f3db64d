"""What README.md shows, run as it stands, each block a program of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List

from .harness import PATIENCE, SOURCES, TestCase, lives, until

README = Path(__file__).resolve().parents[1] / "README.md"


class Readme(TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="workhall-py-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        blocks: List[str] = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
        names = ["counter", "book", "attached", "attached_aio", "signals", "pages", "client", "client_aio"]
        self.assertEqual(len(blocks), len(names), "each has its place here")
        config = ""
        for name, block in zip(names, blocks):
            path = self.directory / f"{name}.py"
            path.write_text(block)
            if name in ("counter", "book", "pages"):
                config += (
                    f'[class.{name}]\nexec = ["{sys.executable}", "{path}"]\n'
                    f'environment = {{ PYTHONPATH = "{SOURCES}" }}\ndirectory = "{self.directory}"\n'
                )
        self.hall = self.supervisor(config).start()
        self.client = self.hall.client()
        self.environment = {**os.environ, "PYTHONPATH": str(SOURCES), "WORKHALL_SOCKET": self.hall.socket}

    def begin(self, name: str) -> "subprocess.Popen[str]":
        program = subprocess.Popen(
            [sys.executable, str(self.directory / f"{name}.py")],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(program.communicate)
        self.addCleanup(program.kill)
        return program

    def printed(self, name: str) -> str:
        out, errors = self.begin(name).communicate(timeout=PATIENCE)
        self.assertEqual(errors, "")
        return out

    def test_its_workers_and_its_clients(self) -> None:
        self.assertEqual(self.client.call_and_wait("counter", "total"), 0)
        self.assertEqual(self.printed("client"), "12\n")
        self.assertEqual(self.printed("client_aio"), "")
        self.assertEqual(self.client.call_and_wait("counter", "total"), 12 + sum(range(100)))
        self.assertEqual(self.client.call_and_wait("book", "add", "a", {"times": 3}), 3)

    def test_its_signals(self) -> None:
        signal = self.client.signal()
        self.client.call("pages", "count", "b.txt", signal)
        self.assertTrue(signal.wait(timeout=PATIENCE))
        self.assertEqual(self.printed("signals"), "12\n")

    def test_its_attached_workers(self) -> None:
        for name in ("attached", "attached_aio"):
            program = self.begin(name)

            def is_there() -> bool:
                if not lives(program.pid):
                    self.fail(program.communicate()[1])
                return "device/balance" in [row["name"] for row in self.client.ps()]

            until("it is attached", is_there)
            self.assertEqual(self.client.info("device/balance")["type"], "attached")
            self.assertEqual(self.client.call_and_wait("device/balance", "weigh"), 12.5)
            program.kill()
            until("it is gone", lambda: "device/balance" not in [row["name"] for row in self.client.ps()])
