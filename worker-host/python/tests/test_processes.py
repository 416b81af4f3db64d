"""Attached workers and processes for one method (rules P1 to P4), through a real supervisor."""

from __future__ import annotations

import os
import select
import signal as unix_signal
import subprocess
import sys
import threading
from typing import Any, List

import workhall
from workhall import AttachedWorker, Dead, Failed, Ignored, ProcessState, ProcessType, Refused, SupervisorGone, WorkhallError

from .harness import PATIENCE, SOURCES, TestCase, until

WORKER = """
    import os, time

    @worker.method
    def echo(*args):
        return list(args)

    @worker.method
    def wait_for(path):
        open(path + ".begun", "w").close()
        while not os.path.exists(path):
            time.sleep(0.005)
        return worker.name

    @worker.method
    def call(name, method, *args):
        return worker.call_and_wait(name, method, *args)

    @worker.method
    def die():
        os.kill(os.getpid(), 9)

    @worker.method
    def fail():
        raise ValueError("no")

    @worker.method
    def wait_for_signal(signal):
        return signal.wait(60)

    worker.run()
"""


class Device:
    """State of an attached worker, whose tasks can be held."""

    def __init__(self) -> None:
        self.seen: List[Any] = []
        self.begun = threading.Event()
        self.go = threading.Event()

    @workhall.worker.method
    def note(self, value: Any) -> int:
        self.seen.append(value)
        return len(self.seen)

    @workhall.worker.method
    def hold(self) -> str:
        self.begun.set()
        self.go.wait(PATIENCE)
        return "held"

    @workhall.worker.method
    def fail(self) -> None:
        raise ValueError("no")


class Attached(TestCase):
    def setUp(self) -> None:
        self.hall = self.with_worker(WORKER)
        self.client = self.hall.client()
        self.device = Device()
        self.ends: List[BaseException] = []

    def attach(self, name: str = "device") -> AttachedWorker:
        attached = workhall.attach(name, socket=self.hall.socket)
        self.addCleanup(attached.close)
        return attached

    def serve(self, attached: AttachedWorker) -> threading.Thread:
        def run() -> None:
            try:
                attached.run(self.device)
            except WorkhallError as error:
                self.ends.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(attached.close)
        self.addCleanup(self.device.go.set)
        return thread

    def test_p02_calls_reach_it_one_at_a_time_and_in_order(self) -> None:
        attached = self.attach()
        self.assertEqual((attached.name, attached.number), ("device", self.client.info("device")["number"]))
        self.client.call("device", "note", "before it runs")
        self.serve(attached)
        self.assertEqual(self.client.call_and_wait("device", "note", 1), 2)
        for n in range(100):
            self.client.call("device", "note", n)
        self.assertEqual(self.client.call_and_wait(attached.number, "note", "last"), 103)
        self.assertEqual(self.device.seen, ["before it runs", 1, *range(100), "last"])
        with self.assertRaisesRegex(Failed, "ValueError: no"):
            self.client.call_and_wait("device", "fail")
        with self.assertRaisesRegex(Failed, "there is no method `m`: this worker has `fail`, `hold`, `note`"):
            self.client.call_and_wait("device", "m")
        # Workers call it, and it calls workers, in any thread.
        self.assertEqual(self.client.call_and_wait("w", "call", "device", "note", "from w"), 104)
        self.assertEqual(attached.call_and_wait("w", "echo", 5), [5])

    def test_p02_a_task_that_is_cancelled_before_it_is_begun_is_not_begun(self) -> None:
        def post(what: str) -> int:
            """Posts one that the process has then."""
            message = self.client.call("device", "note", what).message
            until("it is at the process", lambda: self.client.info("device")["running"])
            assert message is not None
            return message

        attached = self.attach()
        # Read before `run`, together with an answer, and the cancel is not read yet.
        message = post("before it runs")
        attached.status()
        self.assertEqual([task.id for task in attached._running().session.tasks], [message])
        self.assertTrue(self.client.cancel(message).running)
        until("its cancel has come", lambda: attached._running()._poll(select.POLLIN, 0))
        self.serve(attached)
        self.assertEqual(self.client.call_and_wait("device", "note", 1), 1)
        self.assertEqual(self.device.seen, [1])
        self.assertEqual(self.client.status()["ledger"]["discarded"], 1)

    def test_p02_p03_its_type_is_said(self) -> None:
        self.attach()
        info = self.client.info("device")
        self.assertEqual((info["type"], info["type_number"]), ("attached", ProcessType.WORKER))
        self.assertTrue(ProcessState(info["state_number"]).is_alive)

    def test_p02_k10_a_kill_only_empties_its_mailbox(self) -> None:
        attached = self.attach()
        self.serve(attached)
        self.client.call("device", "hold")
        self.assertTrue(self.device.begun.wait(PATIENCE))
        for n in range(3):
            self.client.call("device", "note", n)
        self.assertEqual(self.client.kill("device").discarded, 3)
        self.device.go.set()
        self.assertEqual(self.client.call_and_wait("device", "note", "after"), 1)

    def test_p02_a_name_that_is_taken_is_refused(self) -> None:
        attached = self.attach()
        with self.assertRaises(Refused) as raised:
            self.attach()
        self.assertEqual(raised.exception.reason, "name_taken")
        with self.assertRaises(Refused) as raised:
            self.attach("a\nb")
        self.assertEqual(raised.exception.reason, "bad_name")
        attached.close()
        until("the name is free", lambda: "device" not in [row["name"] for row in self.client.ps()])
        self.attach()

    def test_p02_it_leaves_after_the_current_task_or_after_all(self) -> None:
        for drain, done in [(False, 1), (True, 4)]:
            self.device = Device()
            before = self.client.status()["ledger"]
            attached = self.attach()
            thread = self.serve(attached)
            self.client.call("device", "hold")
            self.assertTrue(self.device.begun.wait(PATIENCE))
            for n in range(3):
                self.client.call("device", "note", n)
            attached.leave(drain=drain)
            self.device.go.set()
            thread.join()
            until("it is gone", lambda: "device" not in [row["name"] for row in self.client.ps()])
            after = self.client.status()["ledger"]
            self.assertEqual((after["done"] - before["done"], after["dead"] - before["dead"]), (done, 4 - done))
        self.assertEqual(self.ends, [])
        with self.assertRaises(SupervisorGone):
            attached.call("w", "echo")
        with self.assertRaisesRegex(WorkhallError, "has ended: attach again"):
            attached.run()

    def test_p02_a_second_run_only_raises(self) -> None:
        attached = self.attach()

        @attached.method
        def run_again() -> None:
            attached.run(self.device)

        thread = self.serve(attached)
        again = "it runs already, or has ended: attach again"
        # In a method, and in another thread, while nothing is executed and while something is.
        with self.assertRaisesRegex(Failed, again):
            self.client.call_and_wait("device", "run_again")
        with self.assertRaisesRegex(WorkhallError, again):
            attached.run(self.device)
        # What is wrong otherwise ends the first as little.
        with self.assertRaisesRegex(TypeError, "int has no method"):
            attached.run(5)
        self.client.call("device", "hold")
        self.assertTrue(self.device.begun.wait(PATIENCE))
        with self.assertRaisesRegex(WorkhallError, again):
            attached.run()
        self.device.go.set()
        self.assertEqual(self.client.call_and_wait("device", "note", 1), 1)
        self.assertEqual(self.client.status()["ledger"]["dead"], 0)
        attached.leave()
        thread.join()
        self.assertEqual(self.ends, [])

    def test_p02_one_that_disappears_leaves_dead_letters(self) -> None:
        program = (
            "import os, workhall\n"
            "d = workhall.attach('gone')\n"
            "d.method(lambda: os.kill(os.getpid(), 9), name='die')\n"
            "d.run()\n"
        )
        environment = {"PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"], "WORKHALL_SOCKET": self.hall.socket}
        with subprocess.Popen([sys.executable, "-c", program], env=environment) as process:
            until("it is attached", lambda: "gone" in [row["name"] for row in self.client.ps()])
            os.kill(process.pid, unix_signal.SIGSTOP)
            ends: List[Any] = []

            def wait_for(method: str) -> None:
                try:
                    self.client.call_and_wait("gone", method)
                except Dead as error:
                    ends.append((method, error.reason))

            threads = []
            for n, method in enumerate(["die", "never"]):
                threads.append(threading.Thread(target=wait_for, args=[method]))
                threads[-1].start()
                until("it is accepted", lambda: self.client.status()["ledger"]["accepted"] == n + 1)
            os.kill(process.pid, unix_signal.SIGCONT)
            for thread in threads:
                thread.join()
        self.assertEqual(sorted(ends), [("die", "crashed"), ("never", "abandoned")])

    def test_p02_it_learns_that_the_supervisor_is_gone_or_stops(self) -> None:
        thread = self.serve(self.attach())
        self.client.call_and_wait("device", "note", 1)
        self.hall.kill()
        thread.join()
        self.assertIsInstance(self.ends[0], SupervisorGone)
        hall = self.with_worker(WORKER)
        attached = workhall.attach("device", socket=hall.socket)
        self.ends.clear()
        thread = self.serve(attached)
        hall.client().call_and_wait("device", "note", 1)
        hall.stop()
        thread.join()
        self.assertEqual(self.ends, [], "a supervisor that stops asks for the end")

    def test_wrong_use_names_the_mistake(self) -> None:
        with self.assertRaisesRegex(TypeError, "a worker's name is a text, not 5"):
            workhall.attach(5, socket=self.hall.socket)  # type: ignore[arg-type]
        with self.assertRaises(workhall.NoSupervisor):
            workhall.attach("device", socket=str(self.hall.directory / "nobody"))
        attached = self.attach()
        with self.assertRaisesRegex(WorkhallError, "nothing would be executed"):
            attached.leave(drain=True)
        with self.assertRaisesRegex(TypeError, "int has no method"):
            attached.run(5)


class Run(TestCase):
    def setUp(self) -> None:
        self.hall = self.with_worker(WORKER)
        self.client = self.hall.client()

    def test_p01_a_process_executes_one_method_and_ends(self) -> None:
        self.assertEqual(self.client.run_process_and_wait("w", "echo", 1, {"a": None}), [1, {"a": None}])
        self.assertEqual(self.client.run_process_and_wait("w", "call", "w/other", "echo", 5), [5])
        with self.assertRaisesRegex(Failed, "ValueError: no"):
            self.client.run_process_and_wait("w", "fail")
        with self.assertRaises(Dead):
            self.client.run_process_and_wait("w", "die")
        until("only the worker is left", lambda: [row["name"] for row in self.client.ps()] == ["w/other"])
        with self.assertRaises(Refused):
            self.client.run_process("nobody", "echo")
        with self.assertRaisesRegex(TypeError, "a class and a method are texts"):
            self.client.run_process("w", 5)  # type: ignore[arg-type]

    def test_p01_p03_it_is_unique_if_wanted_and_is_nobodys_to_call(self) -> None:
        path = self.hall.directory / "held"
        receipt = self.client.run_process("w", "wait_for", str(path), name="nightly")
        until("it is executed", lambda: path.with_name("held.begun").exists())
        info = self.client.info(receipt.number)
        self.assertEqual((info["name"], info["type"], info["type_number"]), ("nightly", "run", ProcessType.RUN))
        self.assertEqual(info["state_number"], ProcessState.EXECUTING)
        again = self.client.run_process("w", "wait_for", str(path), name="nightly", unique=True)
        self.assertTrue(again)
        self.assertEqual((again.was_running, again.number, again.message), (True, receipt.number, 0))
        with self.assertRaisesRegex(Ignored, "runs already"):
            self.client.run_process_and_wait("w", "wait_for", str(path), name="nightly", unique=True)
        path.touch()
        self.client.wait(receipt.number, "gone", timeout=PATIENCE)


class Numbers(TestCase):
    def test_p03_p04_4ds_numbers_of_a_worker(self) -> None:
        hall = self.with_worker(WORKER)
        client = hall.client()
        client.call("w", "echo", after=3600)
        rows = {row["name"]: row for row in client.ps()}
        self.assertEqual((rows["w"]["type_number"], rows["w"]["state_number"]), (ProcessType.WORKER, ProcessState.NO_PROCESS))
        self.assertFalse(ProcessState.NO_PROCESS.is_alive)
        self.assertEqual(client.kill("w").discarded, 1)
        client.call_and_wait("w", "echo")
        self.assertEqual(client.info("w")["state_number"], ProcessState.IDLE)
        path = hall.directory / "held"
        client.call("w", "wait_for", str(path))
        until("it is executed", lambda: path.with_name("held.begun").exists())
        self.assertEqual(client.info("w")["state_number"], ProcessState.EXECUTING)
        signal = client.signal()
        client.call("w/waits", "wait_for_signal", signal)
        waits = ProcessState.WAITING_FOR_SIGNAL
        until("it waits for the signal", lambda: client.info("w/waits")["state_number"] == waits)
        signal.trigger()
        client.pause("w")
        self.assertEqual(client.info("w")["state_number"], ProcessState.PAUSED)
        client.resume("w")
        path.touch()
        client.wait("w", "idle", timeout=PATIENCE)
