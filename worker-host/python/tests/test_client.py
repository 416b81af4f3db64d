"""The blocking client, through a real supervisor."""

from __future__ import annotations

import math
import os
import signal
import socket
import threading
from typing import Any, Callable, List

import workhall
from workhall import Client, Dead, Discarded, Expired, Failed, Ignored, Refused, SupervisorGone, TimedOut

from .harness import ADMIN, PATIENCE, TestCase, lives, until

WORKER = """
    import os, signal, time

    @worker.method
    def echo(*args):
        return list(args)

    @worker.method
    def die():
        os.kill(os.getpid(), signal.SIGSEGV)

    @worker.method
    def hold(path):
        open(path + ".begun", "w").close()
        while not os.path.exists(path):
            time.sleep(0.005)
        return [worker.end_requested]

    worker.run()
"""


class Calls(TestCase):
    def setUp(self) -> None:
        self.hall = self.with_worker(WORKER, config=ADMIN)
        self.client = self.hall.client()

    def hold(self, worker: str = "w") -> Callable[[], None]:
        """A worker that executes a task until the function is called."""
        path = self.hall.directory / f"held-{worker.replace('/', '-')}"
        self.client.call(worker, "hold", str(path))
        until("the task is executed", lambda: os.path.exists(f"{path}.begun"))
        return path.touch

    def test_c04_a_receipt_says_what_became_of_the_call(self) -> None:
        receipt = self.client.call("w", "echo", 1)
        self.assertTrue(receipt)
        self.assertEqual((receipt.worker, receipt.number), ("w", self.client.info("w")["number"]))
        self.assertEqual(self.client.call_and_wait(receipt.number, "echo", 1), [1])
        ignored = self.client.call("w/x", "echo", existing=True)
        self.assertFalse(ignored)
        self.assertEqual(ignored.ignored, "no_worker")
        self.assertEqual(self.client.call(999, "echo").ignored, "no_worker")
        self.assertEqual(self.client.call("w/x").ignored, "no_startup_method")
        for worker, reason in [("nobody", "no_class"), ("", "bad_name"), ("a\nb", "bad_name")]:
            with self.assertRaises(Refused) as raised:
                self.client.call(worker, "m")
            self.assertEqual(raised.exception.reason, reason)
            self.assertTrue(raised.exception.detail)
        with self.assertRaisesRegex(Ignored, "no such worker"):
            self.client.call_and_wait(999, "echo")

    def test_c13_expires_and_after_are_in_seconds(self) -> None:
        release = self.hold()
        with self.assertRaises(Expired) as raised:
            self.client.call_and_wait("w", "echo", expires=0.05)
        self.assertFalse(raised.exception.may_have_run)
        later = self.client.call("w", "echo", after=3600)
        self.assertEqual(self.client.kill("w").discarded, 1)
        self.assertTrue(later)
        release()

    def test_every_end_of_a_message_has_its_type(self) -> None:
        self.assertEqual(self.client.call_and_wait("w", "echo", "ü", None, 1.5, {"a": [b"x"]}), ["ü", None, 1.5, {"a": [b"x"]}])
        with self.assertRaises(Dead) as dead:
            self.client.call_and_wait("w", "die")
        self.assertEqual((dead.exception.reason, dead.exception.exit), ("crashed", {"signal": signal.SIGSEGV}))
        self.assertIn("signal 11", str(dead.exception))
        with self.assertRaises(Failed):
            self.client.call_and_wait("w", "what")
        release = self.hold()
        ends: List[BaseException] = []

        def wait_for_it() -> None:
            try:
                self.client.call_and_wait("w", "echo")
            except Discarded as error:
                ends.append(error)

        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        until("it is pending", lambda: self.client.info("w")["pending"] == 1)
        report_thread: List[workhall.KillReport] = []
        killer = threading.Thread(target=lambda: report_thread.append(self.client.kill_and_wait("w")))
        killer.start()
        waiting.join()
        release()
        killer.join()
        self.assertEqual([type(end) for end in ends], [Discarded])
        report = report_thread[0]
        self.assertEqual((report.discarded, report.current, report.ended_by, report.exit), (1, "finished", "ask", {"code": 0}))
        self.assertEqual(set(report.steps), {"ask_ms", "term_ms", "kill_ms"})
        with self.assertRaises(Ignored):
            self.client.kill_and_wait("w")
        self.assertEqual(self.client.kill("w").ignored, "no_worker")

    def test_a_wait_that_times_out_leaves_the_message_and_the_connection(self) -> None:
        release = self.hold()
        with self.assertRaises(TimedOut) as raised:
            self.client.call_and_wait("w", "echo", 1, timeout=0.05)
        message = raised.exception.message
        self.assertIsNotNone(message)
        self.assertIsInstance(raised.exception, TimeoutError)
        with self.assertRaises(TimedOut):
            self.client.call_and_wait("w", "echo", 2, timeout=0)
        with self.assertRaises(TimedOut):
            self.client.wait("w", "idle", timeout=0.01)
        release()
        # The late outcomes are nobody's, and harm nothing.
        self.client.wait("w", "idle", timeout=PATIENCE)
        self.assertEqual(self.client.call_and_wait("w", "echo", 3), [3])
        self.assertEqual(self.client.status()["ledger"]["done"], 4)

    def test_questions_and_orders(self) -> None:
        self.client.call_and_wait("w/a", "echo")
        self.client.call_and_wait("w/b", "echo")
        self.assertEqual([row["name"] for row in self.client.ps()], ["w/a", "w/b"])
        self.assertEqual(self.client.info("w/a")["class"], "w")
        self.assertEqual(self.client.status()["ledger"]["done"], 2)
        with self.assertRaises(Ignored):
            self.client.info("w/c")
        self.client.pause("w/a")
        self.assertEqual(self.client.info("w/a")["state"], "paused")
        self.client.call("w/a", "echo")
        self.assertEqual(self.client.info("w/a")["pending"], 1)
        self.client.resume("w/a")
        self.client.wait("w/a", "empty", timeout=PATIENCE)
        self.client.wait("w/a", "idle", timeout=PATIENCE)
        for order in (self.client.pause, self.client.resume):
            with self.assertRaises(Ignored):
                order("w/c")
        self.assertEqual(self.client.reload()["changed"], [])
        (self.hall.directory / "workhall.toml").write_text("[class.x]\n")
        with self.assertRaisesRegex(Failed, "workhall.toml"):
            self.client.reload()

    def test_ps_reads_all_pages(self) -> None:
        page = workhall._requests.PAGE
        workhall._requests.PAGE = 3
        self.addCleanup(setattr, workhall._requests, "PAGE", page)
        # Workers that exist and have no process: something is posted for later.
        for n in range(7):
            self.client.call(f"w/{n}", "echo", after=3600)
        self.assertEqual([row["name"] for row in self.client.ps()], [f"w/{n}" for n in range(7)])

    def test_dead_letters(self) -> None:
        for _ in range(2):
            with self.assertRaises(Dead):
                self.client.call_and_wait("w", "die")
        dead = self.client.dead("w")
        self.assertEqual((dead["messages"], [letter["reason"] for letter in dead["letters"]]), (2, ["crashed", "crashed"]))
        first, second = (letter["message"] for letter in dead["letters"])
        self.assertEqual(self.client.dead(limit=1)["letters"][0]["message"], second)
        self.assertEqual(self.client.dead(before=dead["letters"][1]["at"])["letters"][0]["message"], first)
        self.assertEqual(self.client.dead_show(first)["method"], "die")
        self.assertEqual(self.client.requeue(first)["messages"], 1)
        until("it has died again", lambda: self.client.dead()["messages"] == 2)
        self.assertEqual(self.client.dead_drop(second), 1)
        self.assertEqual(self.client.dead_drop(everything=True), 1)
        with self.assertRaises(Ignored):
            self.client.dead_show(first)
        wrongs: List[Any] = [{}, {"message": 1, "worker": "w"}, {"message": 1, "everything": True}]
        for wrong in wrongs:
            with self.assertRaisesRegex(TypeError, "exactly one of"):
                self.client.requeue(**wrong)

    def test_logs_and_events(self) -> None:
        self.client.call_and_wait("w", "echo")
        with self.assertRaises(Dead):
            self.client.call_and_wait("w", "die")
        events = until("the death is told", lambda: [e for e in self.client.events("w") if e["event"] == "dead"])
        self.assertEqual(len(events), 1)
        self.assertEqual(list(self.client.logs("w")), [])
        following = self.client.events("w", last=0, follow=True)
        self.client.call("w", "echo")
        self.assertEqual(next(following)["worker"], "w")
        following.close()  # type: ignore[attr-defined]
        until("its connection is closed", lambda: self.client.status()["counts"]["clients"] == 1)

    def test_many_threads_share_one_client(self) -> None:
        wrong: List[Any] = []

        def work(n: int) -> None:
            for i in range(100):
                result = self.client.call_and_wait(f"w/{n % 2}", "echo", n, i)
                if result != [n, i]:
                    wrong.append((n, i, result))

        threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(wrong, [])
        self.assertEqual(self.client.status()["ledger"]["done"], 800)

    def test_large_arguments_and_results(self) -> None:
        text = "x" * (3 << 20)
        self.assertEqual(self.client.call_and_wait("w", "echo", text), [text])
        with self.assertRaises(Refused) as raised:
            self.client.call("w", "echo", "x" * (5 << 20))
        self.assertEqual(raised.exception.reason, "too_large")
        with self.assertRaisesRegex(workhall.CannotSend, "16777216 is the most"):
            self.client.call("w", "echo", "x" * (17 << 20))
        self.assertEqual(self.client.call_and_wait("w", "echo", 1), [1])

    def test_wrong_use_names_the_mistake_and_sends_nothing(self) -> None:
        wrong: List[Any] = [
            (lambda: self.client.call(None, "m"), TypeError, r"a worker is a name \(str\) or a number \(int\), not None"),  # type: ignore[arg-type]
            (lambda: self.client.call(True, "m"), TypeError, "not True"),
            (lambda: self.client.call(-1, "m"), ValueError, "-1 is no worker's number"),
            (lambda: self.client.call("w", 5), TypeError, "a method is a text, not 5"),  # type: ignore[arg-type]
            (lambda: self.client.call("w", "echo", {1}), ValueError, r"args\[0\] is a value of type set, which cannot be sent: \{1\}"),
            (lambda: self.client.call("w", "echo", math.nan), ValueError, r"^args\[0\] is nan, which cannot be sent: there is no such"),
            (lambda: self.client.call("w", "echo", 1, {"a": [(0, -math.inf)]}), ValueError, r"^args\[1\]\.a\[0\]\[1\] is -inf"),
            (lambda: self.client.call("w", "echo", {math.nan: 1}), ValueError, r"a key of args\[0\] is nan"),
            (lambda: self.client.call("w", "echo", [{"$bytes": "!!"}]), ValueError, r'args\[0\]\[0\] is \{"\$bytes": …\}, which stands for bytes'),
            (lambda: self.client.call("w", "echo", {"$bytes": "AB=="}), ValueError, r"no base64: send bytes"),
            (lambda: self.client.call("w", "echo", {"$bytes": "AAA"}), ValueError, r"no base64: send bytes"),
            (lambda: self.client.call("w", "echo", {"$bytes": "AAAA="}), ValueError, r"no base64: send bytes"),
            (lambda: self.client.call("w", "echo", {"$bytes": "AAAA=="}), ValueError, r"no base64: send bytes"),
            (lambda: self.client.signal().trigger({"a": [math.nan]}), ValueError, r"value\[0\] is nan"),
            (lambda: self.client.signal().set("a", {"$bytes": "x"}), ValueError, r"value is .* no base64"),
            (lambda: self.client.run_process("w", "echo", 2**64), ValueError, r"args\[0\] is 0x1(0{16}), which cannot be sent: whole"),
            (lambda: self.client.call("w", "echo", expires=-1), ValueError, "`expires` is in seconds from 0 up"),
            (lambda: self.client.call("w", "echo", after="5s"), TypeError, "`after` is in seconds, a number, not '5s'"),  # type: ignore[arg-type]
            (lambda: self.client.call_and_wait("w", "echo", timeout=-1), ValueError, "`timeout` is in seconds"),
            (lambda: self.client.wait("w", "busy"), ValueError, "`until` is idle, gone, empty or room, not 'busy'"),
        ]
        for use, kind, said in wrong:
            with self.assertRaisesRegex(kind, said):
                use()
        ledger = self.client.status()["ledger"]
        self.assertEqual((ledger["accepted"], self.client.status()["refused"]), (0, 0))
        self.assertEqual(self.client.call_and_wait("w", "echo", 1), [1])


    def test_what_only_looks_like_bytes_or_a_signal_is_a_map(self) -> None:
        odd: List[Any] = [
            {"$bytes": "!!", "b": 1}, {"$bytes": 5}, {"$bytes": ["!!"]}, {"$signal": "x"}, {"$signal": "A" * 32}, {"$signal": None},
            {"$bytes ": "!!"},
        ]
        self.assertEqual(self.client.call_and_wait("w", "echo", *odd), odd)
        self.assertEqual(self.client.call_and_wait("w", "echo", {"$bytes": "AAE="}, {"$bytes": ""}), [b"\x00\x01", b""])
        large: List[Any] = [10**18, 10**19, "1" * 30, b"\x00" * 100, {"a": (1, {"b": b""})}]
        self.assertEqual(self.client.call_and_wait("w", "echo", *large), [10**18, 10**19, "1" * 30, b"\x00" * 100, {"a": [1, {"b": b""}]}])


class Gone(TestCase):
    def test_nobody_answers(self) -> None:
        hall = self.supervisor()
        with self.assertRaises(workhall.NoSupervisor) as raised:
            Client(str(hall.directory / "nobody"))
        self.assertIn(str(hall.directory / "nobody"), str(raised.exception))
        self.assertIsInstance(raised.exception, ConnectionError)

    def test_the_end_of_the_supervisor_says_what_was_not_answered_and_what_was_not_sent(self) -> None:
        hall = self.with_worker(WORKER)
        client = hall.client()
        path = str(hall.directory / "never")
        ends: List[SupervisorGone] = []

        def wait_for_it(n: int) -> None:
            try:
                client.call_and_wait("w", "hold", path, n)
            except SupervisorGone as error:
                ends.append(error)

        threads = [threading.Thread(target=wait_for_it, args=[n]) for n in range(2)]
        for thread in threads:
            thread.start()
        info = until("both are accepted", lambda: client.status()["ledger"]["accepted"] == 2 and client.info("w"))
        hall.kill()
        for thread in threads:
            thread.join()
        self.assertEqual(len(ends), 2)
        for end in ends:
            self.assertTrue(end.sent)
            self.assertRegex(str(end), r"gone: call `hold` of w \(message \d+\) was not answered, and may or may not have been executed")
            self.assertEqual(len(end.unanswered), 2)
        for _ in range(2):
            with self.assertRaises(SupervisorGone) as raised:
                client.call("w", "echo")
            self.assertFalse(raised.exception.sent)
            self.assertRegex(str(raised.exception), "call `echo` of w was not sent, and not executed")
        (hall.directory / "never").touch()
        until("the worker has ended", lambda: not lives(info["pid"]))

    def test_a_client_that_was_closed_says_so(self) -> None:
        hall = self.with_worker(WORKER)
        with Client(hall.socket) as client:
            client.call("w", "echo")
        with self.assertRaisesRegex(SupervisorGone, "the connection to the supervisor at .* was closed: status was not sent"):
            client.status()
        # From another thread, while one waits.
        other = hall.client()
        path = hall.directory / "held"
        ends: List[str] = []

        def wait_for_it() -> None:
            try:
                other.call_and_wait("w", "hold", str(path))
            except SupervisorGone as error:
                ends.append(str(error))

        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        until("it is executed", lambda: path.with_name("held.begun").exists())
        other.close()
        waiting.join()
        self.assertRegex(ends[0], "was closed: call `hold` of w .* may or may not have been executed")
        path.touch()

    def test_a_supervisor_that_does_not_answer_costs_no_more_than_the_timeout(self) -> None:
        hall = self.with_worker(WORKER)
        client = hall.client(timeout=0.2)
        os.kill(hall.pid, signal.SIGSTOP)
        try:
            with self.assertRaises(TimedOut) as raised:
                client.status()
            self.assertIn("status had no answer within 0.2s", str(raised.exception))
            # Until nothing more can be written.
            for _ in range(100):
                with self.assertRaises(TimedOut):
                    client.call("w", "echo", "x" * 1_000_000)
                if len(client._link._out) > 2_000_000:
                    break
            self.assertGreater(len(client._link._out), 2_000_000)
        finally:
            os.kill(hall.pid, signal.SIGCONT)
        client.timeout = PATIENCE
        # What was begun is completed: the stream is whole.
        self.assertEqual(client.call_and_wait("w", "echo", 1, timeout=PATIENCE), [1])

    def test_a_connection_that_is_denied_says_why(self) -> None:
        # One that accepts, says why not, and closes: as a supervisor with too many clients does.
        hall = self.supervisor()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(hall.socket)
            listener.listen()
            client = Client(hall.socket)
            connection = listener.accept()[0]
            connection.sendall(b'{"error":{"ref":null,"detail":"too many connections of user 5"}}\n')
            connection.close()
            with self.assertRaisesRegex(SupervisorGone, "it said: too many connections of user 5"):
                client.status()
            client.close()
