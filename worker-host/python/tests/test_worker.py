"""Workers, through a real supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import List, Any, Tuple

import workhall
import workhall.aio
from workhall import Failed, MethodError
from workhall._json import decoder
from workhall._methods import Method, told

from .harness import ADMIN, PATIENCE, SOURCES, TestCase, binary, lives, until

COUNTER = """
    total = 0

    @worker.method
    def add(amount: int) -> int:
        global total
        total += amount
        return total

    @worker.method("total")
    def read():
        return total

    worker.run()
"""


class Methods(TestCase):
    def test_w06_the_state_is_the_memory_of_the_process(self) -> None:
        client = self.with_worker(COUNTER).client()
        self.assertTrue(client.call("w", "add", 5))
        self.assertEqual(client.call_and_wait("w", "add", 7), 12)
        self.assertEqual(client.call_and_wait("w/eu", "total"), 0)

    def test_state_in_an_object_whose_marked_methods_may_be_called(self) -> None:
        supervisor = self.with_worker(
            """
            class Book:
                def __init__(self, name):
                    self.name, self.rows = name, []

                @worker.method
                def add(self, row, *, times=1):
                    self.rows += [row] * times
                    return len(self.rows)

                @worker.method("rows")
                def all_rows(self):
                    return self.rows

                @staticmethod
                @worker.method
                def double(x):
                    return 2 * x

                def helper(self):
                    return "not to be called"

            @worker.method
            def who():
                return [worker.name, worker.number, worker.generation]

            worker.run(Book(worker.name))
            """
        )
        client = supervisor.client()
        self.assertEqual(client.call_and_wait("w", "add", "a"), 1)
        self.assertEqual(client.call_and_wait("w", "add", "b", {"times": 2}), 3)
        self.assertEqual(client.call_and_wait("w", "rows"), ["a", "b", "b"])
        self.assertEqual(client.call_and_wait("w", "double", 4), 8)
        self.assertEqual(client.call_and_wait("w", "who"), ["w", client.info("w")["number"], 1])
        with self.assertRaisesRegex(Failed, "there is no method `helper`: this worker has `who`, `add`, `rows`, `double`"):
            client.call_and_wait("w", "helper")

    def test_arguments_that_do_not_fit_say_which(self) -> None:
        client = self.with_worker(COUNTER).client()
        for args, said in [
            ((), "missing a required argument: 'amount'"),
            ((1, 2), "too many positional arguments"),
        ]:
            with self.assertRaises(Failed) as raised:
                client.call_and_wait("w", "add", *args)
            self.assertEqual(
                raised.exception.error, f"the arguments of `add` do not fit: {said}; it is add(amount: int) -> int"
            )
        with self.assertRaisesRegex(Failed, "there is no method `take`: this worker has `add`, `total`"):
            client.call_and_wait("w", "take")
        # The TypeError of a method's own is no wrong argument.
        with self.assertRaisesRegex(Failed, "^TypeError: unsupported operand"):
            client.call_and_wait("w", "add", "a")
        self.assertEqual((client.info("w")["generation"], client.info("w")["crashes"]), (1, 0))

    def test_a_last_object_is_spread_onto_keywords_only_where_they_are_declared(self) -> None:
        def plain(a, b=None):  # type: ignore[no-untyped-def]
            return [a, b]

        def keywords(a, b=None, *, c=0):  # type: ignore[no-untyped-def]
            return [a, b, c]

        def any_keywords(*args, **fields):  # type: ignore[no-untyped-def]
            return [list(args), fields]

        def required(row, *, times, **fields):  # type: ignore[no-untyped-def]
            return [row, times, fields]

        def misspelt(row, *, times):  # type: ignore[no-untyped-def]
            return [row, times]

        fits: List[Any] = [
            (plain, [{"b": 1}], [{"b": 1}, None]),
            (keywords, [1], [1, None, 0]),
            (keywords, [1, {"c": 3}], [1, None, 3]),
            (keywords, [{"a": 1, "b": 2, "c": 3}], [1, 2, 3]),
            (keywords, [1, {"x": 1}, {}], [1, {"x": 1}, 0]),
            (any_keywords, [1, {"x": 2}], [[1], {"x": 2}]),
        ]
        for function, args, result in fits:
            self.assertEqual(Method("m", function).execute(args), result)
        does_not: List[Any] = [
            (plain, [], "missing a required argument: 'a'"),
            (keywords, [1, {"d": 3}], "got an unexpected keyword argument 'd'"),
            (keywords, [1, {"a": 3}], "multiple values for argument 'a'"),
            (keywords, [1, 2, 3], "too many positional arguments"),
            (misspelt, ["x", {"tims": 3}], "missing a required .*'times', and it has no argument 'tims'; it is m"),
            (misspelt, [{"tims": 3, "y": 1}], "missing a required .*, and it has no argument 'tims', 'y'; it is m"),
            (misspelt, ["x", {"times": 3, "tims": 3}], "fit: got an unexpected keyword argument 'tims'; it is m"),
            (required, ["x", {"tims": 3}], "missing a required .*'times'; it is m"),
        ]
        for function, args, said in does_not:
            with self.assertRaisesRegex(MethodError, said):
                Method("m", function).execute(args)

    def test_what_a_binary_peer_has_sent_and_is_no_base64_is_a_map(self) -> None:
        decode = decoder(str)
        for text in ["no base", "!!", "AA=", "AA", "AB==", "AA==\n", "AA==AA==", "-_8=", "é", "AAAA=", "AAAA==", "AA===", "AAAA====", "="]:
            self.assertEqual(decode(json.dumps([{"$bytes": text}]).encode()), [{"$bytes": text}])
        self.assertEqual(decode(b'[{"$bytes":"AA=="},{"$bytes":""}]'), [b"\0", b""])

    def test_a_method_of_an_object_may_be_given_by_itself(self) -> None:
        class State:
            def add(self, n: int) -> int:
                return n + 1

        worker = workhall.Worker()
        worker.method(State().add)
        worker.method(State().add, name="more")
        worker.method(abs)
        self.assertEqual([worker._methods[name].execute([-5]) for name in ("add", "more", "abs")], [-4, -4, 5])

    def test_what_cannot_be_a_method_is_said_where_it_is_declared(self) -> None:
        async def later() -> None: ...

        def generator():  # type: ignore[no-untyped-def]
            yield 1

        class Marked:
            @workhall.worker.method
            def add(self) -> None: ...

        worker = workhall.Worker()
        worker.method(lambda: 1, name="a")
        worker.on_error(print)
        wrongs: List[Any] = [
            (lambda: worker.method(later), TypeError, "async function"),
            (lambda: worker.method(generator), TypeError, "generator"),
            (lambda: worker.method(5), TypeError, "a method is a function, not 5"),  # type: ignore[call-overload]
            (lambda: worker.method(lambda: 2, name="a"), ValueError, "two methods `a`"),
            (lambda: worker.on_error(print), ValueError, "an error hook already"),
            (lambda: workhall.Worker().on_error(later), TypeError, "async function.*ordinary"),  # type: ignore[arg-type]
            (lambda: workhall.aio.AttachedWorker(None, None).on_error(later), TypeError, "async function.*ordinary"),  # type: ignore[arg-type]
            (lambda: workhall.Worker().on_error(5), TypeError, "the error hook is a function, not 5"),  # type: ignore[arg-type]
            (lambda: worker.run(Marked), TypeError, r"write run\(Marked\(\)\)"),
            (lambda: worker.run(5), TypeError, "int has no method: mark those"),
            (lambda: worker.run(window=0), ValueError, "`window` is 1 to 1024"),
            (lambda: worker.sender, workhall.WorkhallError, "for use in a method"),
            (lambda: worker.call("x"), workhall.WorkhallError, "the worker does not run"),
        ]
        for wrong, kind, said in wrongs:
            with self.assertRaisesRegex(kind, said):
                wrong()

    def test_a_worker_that_is_started_by_hand_says_what_it_is_and_how_to_start_it(self) -> None:
        program = "from workhall import worker\nworker.method(print)\nworker.run()\n"
        environment = {"PYTHONPATH": str(SOURCES), "PATH": os.environ["PATH"]}
        for more, said in [({}, "WORKHALL_FD is not set"), ({"WORKHALL_FD": "77"}, "WORKHALL_FD is `77`: ")]:
            ended = subprocess.run(
                [sys.executable, "-c", program], env={**environment, **more}, stderr=subprocess.PIPE, text=True, timeout=PATIENCE
            )
            self.assertEqual(ended.returncode, 1, ended)
            self.assertIn(said, ended.stderr)
            self.assertIn("workhall serve --workers DIR", ended.stderr)
            self.assertNotIn("Traceback", ended.stderr)


class Errors(TestCase):
    def test_d03_an_exception_is_failed_with_its_traceback_and_the_process_lives_on(self) -> None:
        supervisor = self.with_worker(
            """
            seen = []

            @worker.on_error
            def hook(error):
                seen.append([worker.task.method, type(error).__name__])

            def inner(n):
                raise LookupError(f"no row {n}")

            @worker.method
            def read(n):
                try:
                    inner(n)
                except LookupError as error:
                    raise ValueError("cannot read") from error

            @worker.method
            def plain(text):
                raise workhall.MethodError(text)

            @worker.method("seen")
            def list_seen():
                return seen

            worker.run()
            """
        )
        client = supervisor.client()
        with self.assertRaises(Failed) as raised:
            client.call_and_wait("w", "read", 7)
        error = raised.exception.error
        self.assertTrue(error.startswith("ValueError: cannot read\nTraceback (most recent call last):\n"), error)
        self.assertIn("w.py", error)
        self.assertIn("in read", error)
        self.assertIn("LookupError('no row 7')", error)
        self.assertNotRegex(error, "_worker.py|_methods.py")
        with self.assertRaises(Failed) as raised:
            client.call_and_wait("w", "plain", "the shop is closed")
        self.assertEqual(raised.exception.error, "the shop is closed")
        with self.assertRaises(Failed):
            client.call_and_wait("w", "nothing")
        seen = client.call_and_wait("w", "seen")
        self.assertEqual(seen, [["read", "ValueError"], ["plain", "MethodError"], ["nothing", "MethodError"]])
        self.assertEqual((client.info("w")["generation"], client.status()["ledger"]["failed"]), (1, 3))

    def test_d03_what_is_told_of_an_error_is_bounded(self) -> None:
        def deep(n: int) -> None:
            if n == 0:
                raise ValueError("x" * 100_000)
            deep(n - 1)

        try:
            deep(500)
        except ValueError as error:
            text = told(error)
        self.assertLess(len(text), 20_000)
        self.assertTrue(text.startswith("ValueError: xxx"))
        self.assertIn("… (95916 characters more)\nTraceback", text)
        self.assertIn("(482 frames more)", text)

    def test_d03_results_that_cannot_be_sent_are_failed(self) -> None:
        supervisor = self.with_worker(
            """
            @worker.method
            def odd(what):
                deep = []
                for _ in range(100):
                    deep = [deep]
                return {
                    "nan": float("nan"), "set": {1}, "object": object(), "surrogate": "\\ud800", "large": 2 ** 64,
                    "huge": "x" * (17 << 20), "deep": deep, "key": {(1, 2): 3},
                    "infinity": [{"a": float("inf")}], "bytes": [{"$bytes": "!!"}],
                    "padded": [{"$bytes": "AAAA="}],
                }[what]

            @worker.method
            def fine():
                return [2 ** 64 - 1, -(2 ** 63), 0.5, b"\\x00\\xff", {"a": None}, "\\U0001f600", (1, 2)]

            worker.run()
            """
        )
        client = supervisor.client()
        for what, said in [
            ("nan", "^the result of `odd` cannot be sent: result is nan, which cannot be sent"),
            ("infinity", r"result\[0\]\.a is inf"),
            ("bytes", r'result\[0\] is \{"\$bytes": …\}, which stands for bytes, and holds no base64: send bytes'),
            ("padded", r'result\[0\] is \{"\$bytes": …\}, which stands for bytes, and holds no base64: send bytes'),
            ("set", "type set, which cannot be sent"),
            ("object", "type object, which cannot be sent"),
            ("surrogate", "no Unicode"),
            ("large", "whole numbers go from"),
            ("huge", "16777216 is the most"),
            ("deep", "nests more than 64 levels deep"),
            ("key", "a key of result is of type tuple"),
        ]:
            with self.assertRaisesRegex(Failed, said):
                client.call_and_wait("w", "odd", what)
            # Also where nobody waits.
            client.call("w", "odd", what)
        self.assertEqual(
            client.call_and_wait("w", "fine"),
            [2**64 - 1, -(2**63), 0.5, b"\x00\xff", {"a": None}, "\U0001f600", [1, 2]],
        )
        self.assertEqual((client.info("w")["generation"], client.status()["ledger"]["failed"]), (1, 22))

    def test_d03_whatever_is_raised_fails_its_message_alone(self) -> None:
        supervisor = self.with_worker(
            """
            import asyncio

            class Odd(Exception):
                def __str__(self):
                    raise ValueError("no text")
                __repr__ = __str__

            class OddMethodError(workhall.MethodError):
                __str__ = Odd.__str__

            class Base(BaseException):
                pass

            class Unshowable:
                def __repr__(self):
                    raise Odd()

            async def cancelled():
                asyncio.current_task().cancel()
                await asyncio.sleep(1)

            @worker.method
            def odd(what):
                if what == "cause":
                    raise ValueError("outer") from Odd()
                if what == "context":
                    try:
                        raise Odd()
                    except Odd:
                        raise ValueError("outer")
                if what == "cancelled":
                    asyncio.run(cancelled())
                if what == "result":
                    return Unshowable()
                raise {"text": Odd(), "method": OddMethodError(), "base": Base("b"), "generator": GeneratorExit()}[what]

            worker.run()
            """
        )
        client = supervisor.client()
        for what, said in [
            ("text", "Odd: <.*str.*failed>"),
            ("method", "OddMethodError"),
            ("base", "Base: b"),
            ("generator", "GeneratorExit"),
            ("cause", "ValueError: outer(.|\n)*raised while this was handled: Odd"),
            ("context", "ValueError: outer(.|\n)*raised while this was handled: Odd"),
            ("cancelled", "CancelledError"),
            ("result", "Odd"),
        ]:
            with self.assertRaisesRegex(Failed, said):
                client.call_and_wait("w", "odd", what)
        self.assertEqual(client.info("w")["generation"], 1)

    def test_d02_an_exit_in_a_method_is_a_crash_of_that_message_alone(self) -> None:
        supervisor = self.with_worker(
            """
            import sys

            @worker.method
            def end(status):
                sys.exit(status)

            @worker.method
            def generation():
                return worker.generation

            worker.run()
            """
        )
        client = supervisor.client()
        with self.assertRaises(workhall.Dead) as raised:
            client.call_and_wait("w", "end", 7)
        self.assertEqual((raised.exception.reason, raised.exception.exit), ("crashed", {"code": 7}))
        self.assertTrue(raised.exception.may_have_run)
        self.assertEqual(client.call_and_wait("w", "generation"), 2)


class Processes(TestCase):
    def test_stdout_is_the_workers_own_and_comes_into_the_log_line_by_line(self) -> None:
        supervisor = self.with_worker(
            """
            @worker.method
            def say(text):
                print(text)
                return len(text)

            worker.run()
            """,
            config=ADMIN,
        )
        client = supervisor.client()
        self.assertEqual(client.call_and_wait("w", "say", '{"done":{"id":1}}'), 17)
        until("the line is there", lambda: [line["text"] for line in client.logs("w")] == ['{"done":{"id":1}}'])

    def test_children_of_a_worker_do_not_inherit_its_connection(self) -> None:
        supervisor = self.with_worker(
            """
            import os, subprocess

            @worker.method
            def open_in_child(close_fds):
                # One of them was the directory's.
                code = "import os; print([os.path.realpath(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n not in '012'])"
                child = subprocess.run(["python3", "-c", code], close_fds=close_fds, stdout=subprocess.PIPE, text=True, check=True)
                return child.stdout

            @worker.method
            def fork():
                pid = os.fork()
                if pid == 0:
                    try:
                        worker.call("x")
                    except workhall.WorkhallError as error:
                        os._exit(0 if "fork" in str(error) and not is_open() else 1)
                    os._exit(2)
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

            def is_open():
                try:
                    os.fstat(int(os.environ["WORKHALL_FD"]))
                    return True
                except OSError:
                    return False

            worker.run()
            """
        )
        client = supervisor.client()
        lock = "/s.names/"
        self.assertIn(lock, client.call_and_wait("w", "open_in_child", False))
        self.assertNotRegex(client.call_and_wait("w", "open_in_child", False), "socket:|memfd")
        # What the README says of children and the name.
        self.assertNotIn(lock, client.call_and_wait("w", "open_in_child", True))
        self.assertEqual(client.call_and_wait("w", "fork"), 0)
        self.assertEqual(client.call_and_wait("w", "fork"), 0)

    def test_d07_a_worker_ends_when_its_supervisor_has_died(self) -> None:
        supervisor = self.with_worker(COUNTER)
        client = supervisor.client()
        client.call_and_wait("w", "add", 1)
        pid = client.info("w")["pid"]
        supervisor.kill()
        until("the worker has ended", lambda: not lives(pid))

    def test_d07_tasks_that_were_sent_ahead_are_not_begun_when_the_supervisor_has_died(self) -> None:
        supervisor = self.with_worker(
            """
            import os, time

            @worker.method
            def step(n):
                with open("steps", "a") as steps:
                    print(n, file=steps)
                while n == 0 and not os.path.exists("go"):
                    time.sleep(0.005)

            worker.run()
            """
        )
        client = supervisor.client()
        for n in range(20):
            client.call("w", "step", n)
        pid = client.info("w")["pid"]
        until("the first is executed", lambda: (supervisor.directory / "steps").exists())
        supervisor.kill()
        (supervisor.directory / "go").touch()
        until("the worker has ended", lambda: not lives(pid))
        self.assertEqual((supervisor.directory / "steps").read_text(), "0\n")

    def test_k04_sigterm_ends_it(self) -> None:
        client = self.with_worker(COUNTER).client()
        client.call_and_wait("w", "add", 1)
        os.kill(client.info("w")["pid"], signal.SIGTERM)
        until("the process is gone", lambda: client.info("w")["pid"] is None)
        self.assertEqual(client.info("w")["last_exit"]["exit"], {"signal": signal.SIGTERM})


class Conversation(TestCase):
    PAIR = """
        heard = []

        @worker.method
        def ask(name, *args):
            receipt = worker.call(name, *args)
            return [bool(receipt), receipt.ignored, receipt.worker]

        @worker.method
        def ping(n):
            return bool(worker.reply("pong", n + 1))

        @worker.method
        def pong(n):
            heard.append([n, worker.sender.worker if worker.sender else None])

        @worker.method
        def heard_so_far():
            return heard

        @worker.method
        def wait_for(name, method, *args):
            return worker.call_and_wait(name, method, *args, timeout=60)

        @worker.method
        def kill(name):
            killed = worker.kill(name)
            return [bool(killed), killed.discarded]

        @worker.method
        def only_existing(name):
            return worker.call(name, "pong", 1, existing=True).ignored

        worker.run()
    """

    def test_c11_a_worker_calls_back_its_caller_and_not_a_client(self) -> None:
        client = self.with_worker(self.PAIR).client()
        self.assertEqual(client.call_and_wait("w/a", "ask", "w/b", "ping", 5), [True, None, "w/b"])
        heard = until("it was called back", lambda: client.call_and_wait("w/a", "heard_so_far"))
        self.assertEqual(heard, [[6, "w/b"]])
        with self.assertRaisesRegex(Failed, "sent by a client, which cannot be called back"):
            client.call_and_wait("w/b", "ping", 1)

    def test_c10_c12_k06_calls_and_kills_of_a_worker(self) -> None:
        client = self.with_worker(self.PAIR).client()
        self.assertEqual(client.call_and_wait("w", "ask", "w", "pong", 1), [True, None, "w"])
        self.assertEqual(client.call_and_wait("w", "heard_so_far"), [[1, "w"]])
        self.assertEqual(client.call_and_wait("w", "only_existing", "w/x"), "no_worker")
        self.assertEqual(client.call_and_wait("w", "kill", "w/x"), [False, 0])
        self.assertEqual(client.call_and_wait("w", "wait_for", "w/x", "heard_so_far"), [])
        self.assertEqual(client.call_and_wait("w", "kill", "w/x"), [True, 0])
        with self.assertRaisesRegex(Failed, "Refused: refused: no_class"):
            client.call_and_wait("w", "ask", "nobody", "m")
        with self.assertRaisesRegex(Failed, "Failed: there is no method `m`"):
            client.call_and_wait("w", "wait_for", "w/y", "m")

    def test_k03_k09_what_stands_behind_its_own_kill_still_runs(self) -> None:
        supervisor = self.with_worker(
            """
            @worker.method
            def end():
                before = worker.end_requested
                killed = worker.kill_self()
                own = worker.call(worker.number, "end").ignored
                return [before, killed.discarded, own, worker.end_requested]

            worker.run()
            """
        )
        client = supervisor.client()
        # By number the worker is ending; its own call by name would be `own_killed_worker`.
        self.assertEqual(client.call_and_wait("w", "end"), [False, 0, "own_killed_worker", True])
        client.wait("w", "gone", timeout=PATIENCE)

    def test_threads_of_a_worker_may_call_while_tasks_are_executed(self) -> None:
        supervisor = self.with_worker(
            """
            import threading

            got = []

            def work(n):
                for i in range(50):
                    got.append(worker.call_and_wait("w/other", "echo", [n, i]))

            @worker.method
            def begin():
                global threads
                threads = [threading.Thread(target=work, args=[n]) for n in range(4)]
                for thread in threads:
                    thread.start()

            @worker.method
            def echo(value):
                return value

            @worker.method
            def end():
                for thread in threads:
                    thread.join()
                return sorted(got)

            worker.run()
            """
        )
        client = supervisor.client()
        client.call("w", "begin")
        for n in range(200):
            self.assertEqual(client.call_and_wait("w", "echo", n), n)
        self.assertEqual(client.call_and_wait("w", "end"), [[n, i] for n in range(4) for i in range(50)])


class Window(TestCase):
    BLOCKED = """
        import os, time

        @worker.method
        def step(n):
            with open("steps", "a") as steps:
                print(n, file=steps)
            while n == 0 and not os.path.exists("go"):
                time.sleep(0.005)
            if n == 3 and os.path.exists("die"):
                os.kill(os.getpid(), 9)
            return n

        worker.run(window=WINDOW)
    """

    def sent_ahead(self, window: int, options: str = "") -> Tuple[workhall.Client, Path]:
        supervisor = self.with_worker(self.BLOCKED.replace("WINDOW", str(window)), options)
        client = supervisor.client()
        for n in range(20):
            client.call("w", "step", n)
        until("the first is executed", lambda: (supervisor.directory / "steps").exists())
        return client, supervisor.directory

    def test_k01_after_a_kill_no_task_is_begun_however_many_were_sent_ahead(self) -> None:
        for window in (1, 64):
            client, directory = self.sent_ahead(window)
            self.assertEqual(client.kill("w").discarded, 19)
            (directory / "go").touch()
            client.wait("w", "gone", timeout=PATIENCE)
            self.assertEqual((directory / "steps").read_text(), "0\n")
            ledger = client.status()["ledger"]
            self.assertEqual((ledger["done"], ledger["discarded"]), (1, 19))

    def test_d02_exactly_one_message_is_charged_with_a_crash(self) -> None:
        for window in (1, 64):
            client, directory = self.sent_ahead(window)
            (directory / "die").touch()
            (directory / "go").touch()
            client.wait("w", "idle", timeout=PATIENCE)
            self.assertEqual((directory / "steps").read_text().split(), [str(n) for n in range(20)])
            ledger = client.status()["ledger"]
            self.assertEqual((ledger["done"], ledger["dead"]), (19, 1))

    def test_c03_thousands_of_tasks_are_executed_once_and_in_order(self) -> None:
        supervisor = self.with_worker(
            """
            seen = []

            @worker.method
            def add(n):
                seen.append(n)

            @worker.method
            def read():
                return seen

            worker.run()
            """
        )
        client = supervisor.client()
        lines = "".join(f"[{n}]\n" for n in range(5000))
        posted = subprocess.run(
            [binary(), "call", "w", "add", "--lines", "--socket", supervisor.socket],
            input=lines, text=True, stderr=subprocess.PIPE, timeout=PATIENCE,
        )
        self.assertEqual(posted.returncode, 0, posted.stderr)
        self.assertEqual(client.call_and_wait("w", "read"), list(range(5000)))
        self.assertEqual(client.status()["ledger"]["done"], 5001)
