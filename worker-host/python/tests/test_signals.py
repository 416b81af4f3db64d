"""Signals and cancel (rules S1 to S5), through a real supervisor."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any, List

import workhall
from workhall import Dead, Discarded, Failed, Ignored, Lost, Signal
from workhall import aio

from .harness import PATIENCE, TestCase, until

WORKER = """
    import os, time

    kept = []

    @worker.method
    def trigger(signal, values=None):
        assert isinstance(signal, workhall.Signal), signal
        return signal.trigger(values)

    @worker.method
    def keep(where):
        kept.append(where["deep"][0])

    @worker.method
    def trigger_kept():
        return kept.pop().trigger()

    @worker.method
    def forget(signal):
        raise ValueError("it forgets the signal")

    @worker.method
    def die(signal):
        os.kill(os.getpid(), 9)

    @worker.method
    def make_and_wait(name):
        with worker.signal("from a worker") as signal:
            worker.call(name, "trigger", signal, {"n": 5})
            return [signal.wait(60), signal.get("n"), signal.description]

    @worker.method
    def echo(*args):
        return list(args)

    @worker.method
    def until_cancelled(path):
        open(path, "w").close()
        while not worker.cancelled:
            time.sleep(0.005)
        return "cancelled"

    @worker.method
    def hold(path):
        open(path + ".begun", "w").close()
        while not os.path.exists(path):
            time.sleep(0.005)

    worker.run()
"""


class Signals(TestCase):
    def setUp(self) -> None:
        self.hall = self.with_worker(WORKER)
        self.client = self.hall.client()

    def test_s01_s02_s04_a_signal_is_triggered_once_with_values_that_are_read_after(self) -> None:
        signal = self.client.signal("for the test")
        self.assertRegex(signal.id, "^[0-9a-f]{32}$")
        self.assertEqual(signal.description, "for the test")
        self.assertFalse(signal.signaled)
        with self.assertRaisesRegex(workhall.WorkhallError, "was not triggered yet: its values are read after that"):
            signal.get("n")
        signal.set("nothing", None)
        signal.set("bytes", b"\x00")
        self.assertTrue(self.client.call_and_wait("w", "trigger", signal, {"n": 5}))
        self.assertTrue(signal.wait())
        self.assertTrue(signal.signaled)
        self.assertEqual(signal.values, {"nothing": None, "bytes": b"\x00", "n": 5})
        self.assertEqual((signal.get("n"), signal.get("m", 7)), (5, 7))
        self.assertFalse(signal.trigger())
        self.assertFalse(signal.trigger({"n": 6}))
        with self.assertRaises(Ignored) as raised:
            signal.set("n", 6)
        self.assertEqual(raised.exception.reason, "already_triggered")
        self.assertEqual(signal.get("n"), 5)

    def test_s01_what_only_looks_like_a_signal_is_what_it_is(self) -> None:
        for looks in ("zz", "", "A" * 32, "0" * 31):
            self.assertEqual(self.client.call_and_wait("w", "echo", {"$signal": looks}), [{"$signal": looks}])
        self.assertEqual(self.client.call_and_wait("w", "echo", {"$signal": None}, 1), [{"$signal": None}, 1])

    def test_s01_it_travels_anywhere_in_arguments_and_results(self) -> None:
        signal = self.client.signal()
        result = self.client.call_and_wait("w", "echo", {"a": [signal, 1]}, signal)
        self.assertEqual(result, [{"a": [signal, 1]}, signal])
        self.assertIsInstance(result[0]["a"][0], Signal)
        self.client.call_and_wait("w", "keep", {"deep": [signal]})
        waiting: List[bool] = []
        thread = threading.Thread(target=lambda: waiting.append(signal.wait(PATIENCE)))
        thread.start()
        self.assertTrue(self.client.call_and_wait("w", "trigger_kept"))
        thread.join()
        self.assertEqual(waiting, [True])

    def test_s02_all_who_wait_are_woken(self) -> None:
        signal = self.client.signal()
        woken: List[bool] = []
        threads = [threading.Thread(target=lambda: woken.append(signal.wait(PATIENCE))) for _ in range(20)]
        for thread in threads:
            thread.start()
        signal.trigger()
        for thread in threads:
            thread.join()
        self.assertEqual(woken, [True] * 20)

    def test_s03_zero_polls_and_the_time_runs_out(self) -> None:
        signal = self.client.signal()
        self.assertFalse(signal.wait(0))
        self.assertFalse(signal.wait(0.05))
        signal.trigger()
        self.assertTrue(signal.wait(0))
        for wrong in (-1, "5s"):
            with self.assertRaisesRegex((ValueError, TypeError), "`timeout` is in seconds"):
                signal.wait(wrong)  # type: ignore[arg-type]

    def test_s05_who_waits_learns_how_the_message_ended_that_was_to_trigger_it(self) -> None:
        signal = self.client.signal()
        self.client.call("w", "forget", signal)
        with self.assertRaisesRegex(Failed, "it forgets the signal"):
            signal.wait(PATIENCE)
        signal = self.client.signal()
        self.client.call("w", "die", signal)
        with self.assertRaises(Dead):
            signal.wait(PATIENCE)
        signal = self.client.signal()
        self.client.call("w", "keep", {"deep": [signal]})
        self.client.wait("w", "idle", timeout=PATIENCE)
        # Its process has it, and may still trigger it.
        self.assertFalse(signal.wait(0.01))
        self.client.kill_and_wait("w")
        with self.assertRaises(Lost):
            signal.wait(PATIENCE)
        signal = self.client.signal()
        path = self.hall.directory / "held"
        self.client.call("w", "hold", str(path))
        self.client.call("w", "trigger", signal)
        until("the first is executed", lambda: path.with_name("held.begun").exists())
        self.client.kill("w")
        with self.assertRaises(Discarded):
            signal.wait(PATIENCE)
        path.touch()

    def test_s04_the_last_holders_end_frees_it(self) -> None:
        other = self.hall.client()
        with self.client.signal() as signal:
            self.assertFalse(other.signal_of(signal.id).signaled)
        with self.assertRaises(Ignored) as raised:
            signal.trigger()
        self.assertEqual(raised.exception.reason, "no_signal")
        # An object that nobody has any more frees it, with what is sent next.
        identifier = self.client.signal().id
        gc.collect()
        self.client.status()
        with self.assertRaises(Ignored):
            other.signal_of(identifier).wait(0)
        # But not while it is kept for a time.
        kept = self.client.signal(keep=3600).id
        gc.collect()
        self.client.close()
        self.assertTrue(other.signal_of(kept).trigger())
        with self.assertRaisesRegex(ValueError, "32 hexadecimal digits"):
            other.signal_of("7")

    def test_s01_from_the_shell(self) -> None:
        made = self.hall.cli("signal", "new", "--keep", "1h")
        signal = self.client.signal_of(made.stdout.strip())
        signal.trigger({"n": [1]})
        waited = self.hall.cli("signal", "wait", signal.id)
        self.assertEqual((waited.returncode, waited.stdout.strip()), (0, '{"n":[1]}'))

    def test_a_worker_makes_signals_and_waits_for_them(self) -> None:
        self.assertEqual(self.client.call_and_wait("w/a", "make_and_wait", "w/b"), [True, 5, "from a worker"])

    def test_with_asyncio(self) -> None:
        async def main() -> None:
            async with aio.Client(self.hall.socket) as client:
                async with await client.signal("many wait") as signal:
                    waiting = [asyncio.ensure_future(signal.wait(PATIENCE)) for _ in range(100)]
                    self.assertFalse(await signal.wait(0))
                    with self.assertRaisesRegex(workhall.WorkhallError, "not triggered yet"):
                        await signal.values()
                    self.assertTrue(await client.call_and_wait("w", "trigger", signal, {"n": 1}))
                    self.assertEqual(await asyncio.gather(*waiting), [True] * 100)
                    self.assertEqual((await signal.get("n"), await signal.description()), (1, "many wait"))
                    self.assertTrue(await signal.signaled())
                    self.assertFalse(await signal.trigger({"n": 2}))
                    echoed = await client.call_and_wait("w", "echo", signal)
                    self.assertEqual(echoed, [signal])
                    self.assertIsInstance(echoed[0], aio.Signal)
                with self.assertRaises(Ignored):
                    await signal.signaled()
                lost = (await client.signal()).id
                gc.collect()
                with self.assertRaises(Ignored):
                    await client.signal_of(lost).wait(0)

        asyncio.run(main())


class Cancel(TestCase):
    def test_cancel_discards_what_is_pending_and_tells_what_is_executed(self) -> None:
        hall = self.with_worker(WORKER.replace("worker.run()", "worker.run(window=1)"))
        client = hall.client()
        path = hall.directory / "begun"
        results: List[Any] = []
        thread = threading.Thread(target=lambda: results.append(client.call_and_wait("w", "until_cancelled", str(path))))
        thread.start()
        until("it is executed", path.exists)
        running = client.info("w")["running"]["message"]
        pending = client.call("w", "echo")
        cancelled = client.cancel(pending.message)
        self.assertTrue(cancelled)
        self.assertFalse(cancelled.running)
        self.assertTrue(client.cancel(running).running)
        thread.join()
        self.assertEqual(results, ["cancelled"])
        again = client.cancel(running)
        self.assertFalse(again)
        self.assertEqual(again.ignored, "no_message")
        ledger = client.status()["ledger"]
        self.assertEqual((ledger["done"], ledger["discarded"]), (1, 1))
        with self.assertRaisesRegex(TypeError, "known by its id"):
            client.cancel("7")  # type: ignore[arg-type]

    def test_a_task_that_was_sent_ahead_and_is_cancelled_is_not_begun(self) -> None:
        hall = self.with_worker(WORKER)
        client = hall.client()
        path, begun = hall.directory / "held", hall.directory / "begun"
        client.call("w", "hold", str(path))
        until("the first is executed", lambda: path.with_name("held.begun").exists())
        ahead = [client.call("w", "until_cancelled", str(begun)) for _ in range(2)]
        last = client.call("w", "echo")
        for receipt in ahead:
            # It is at the process already, so that sees to it.
            self.assertTrue(client.cancel(receipt.message).running)
        path.touch()
        client.wait("w", "idle", timeout=PATIENCE)
        self.assertFalse(begun.exists())
        ledger = client.status()["ledger"]
        self.assertEqual((ledger["done"], ledger["discarded"]), (2, 2))
        self.assertEqual(client.cancel(last.message).ignored, "no_message")
