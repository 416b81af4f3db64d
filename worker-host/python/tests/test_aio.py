"""The asyncio client, through a real supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any, Awaitable, Callable

import workhall
from workhall import Dead, Discarded, Failed, Ignored, Refused, SupervisorGone, TimedOut
from workhall.aio import Client

from .harness import ADMIN, PATIENCE, Supervisor, TestCase
from .test_client import WORKER


class Aio(TestCase):
    def with_client(self, use: Callable[[Client, Supervisor], Awaitable[Any]], **options: Any) -> Any:
        """Runs a coroutine with a client of a supervisor of its own."""
        hall = self.with_worker(WORKER, config=ADMIN)

        async def main() -> Any:
            async with Client(hall.socket, **options) as client:
                return await asyncio.wait_for(use(client, hall), PATIENCE)

        return asyncio.run(main())

    def test_many_calls_wait_at_a_time(self) -> None:
        async def use(client: Client, hall: Supervisor) -> None:
            results = await asyncio.gather(*(client.call_and_wait(f"w/{n % 3}", "echo", n) for n in range(600)))
            self.assertEqual(results, [[n] for n in range(600)])
            self.assertTrue(await client.call("w", "echo"))
            self.assertEqual((await client.call("w/x", "echo", existing=True)).ignored, "no_worker")

        self.with_client(use)

    def test_every_end_of_a_message_has_its_type(self) -> None:
        async def use(client: Client, hall: Supervisor) -> None:
            with self.assertRaises(Dead):
                await client.call_and_wait("w", "die")
            with self.assertRaises(Failed):
                await client.call_and_wait("w", "what")
            with self.assertRaises(Refused):
                await client.call("nobody", "m")
            with self.assertRaises(Ignored):
                await client.info("w/x")
            with self.assertRaisesRegex(ValueError, "type set"):
                await client.call("w", "echo", {1})
            path = hall.directory / "held"
            held = asyncio.ensure_future(client.call_and_wait("w", "hold", str(path)))
            pending = asyncio.ensure_future(client.call_and_wait("w", "echo"))
            while not path.with_name("held.begun").exists():
                await asyncio.sleep(0.005)
            while (await client.info("w"))["pending"] != 1:
                pass
            killed = asyncio.ensure_future(client.kill_and_wait("w"))
            with self.assertRaises(Discarded):
                await pending
            path.touch()
            self.assertEqual(await held, [True])
            self.assertEqual((await killed).discarded, 1)

        self.with_client(use)

    def test_times_run_out_and_cancelled_coroutines_wait_no_more(self) -> None:
        async def use(client: Client, hall: Supervisor) -> None:
            path = hall.directory / "held"
            await client.call("w", "hold", str(path))
            with self.assertRaises(TimedOut) as raised:
                await client.call_and_wait("w", "echo", timeout=0.1)
            self.assertIsNotNone(raised.exception.message)
            waiting = asyncio.ensure_future(client.call_and_wait("w", "echo"))
            while (await client.info("w"))["pending"] != 2:
                pass
            waiting.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await waiting
            self.assertEqual(client._connected().session.pending, {})
            path.touch()
            await client.wait("w", "idle", timeout=PATIENCE)
            self.assertEqual(await client.call_and_wait("w", "echo", 1), [1])

        self.with_client(use)

    def test_questions_orders_and_news(self) -> None:
        async def use(client: Client, hall: Supervisor) -> None:
            await client.call_and_wait("w", "echo")
            self.assertEqual([row["name"] for row in await client.ps()], ["w"])
            await client.pause("w")
            self.assertEqual((await client.info("w"))["state"], "paused")
            await client.resume("w")
            with self.assertRaises(Dead):
                await client.call_and_wait("w", "die")
            letters = (await client.dead())["letters"]
            self.assertEqual((await client.dead_show(letters[0]["message"]))["method"], "die")
            self.assertEqual(await client.dead_drop(everything=True), 1)
            self.assertEqual((await client.requeue(everything=True))["messages"], 0)
            self.assertEqual((await client.reload())["changed"], [])
            self.assertIn("dead", [event["event"] async for event in client.events("w")])
            self.assertEqual([line async for line in client.logs("w")], [])
            self.assertTrue(await client.kill("w"))

        self.with_client(use)

    def test_the_end_of_the_supervisor_says_what_was_not_answered_and_what_was_not_sent(self) -> None:
        async def use(client: Client, hall: Supervisor) -> None:
            path = hall.directory / "never"
            waiting = [asyncio.ensure_future(client.call_and_wait("w", "hold", str(path), n)) for n in range(2)]
            while (await client.status())["ledger"]["accepted"] != 2:
                pass
            hall.kill()
            for one in waiting:
                with self.assertRaisesRegex(SupervisorGone, r"call `hold` of w \(message \d+\) was not answered") as raised:
                    await one
                self.assertEqual(len(raised.exception.unanswered), 2)
            with self.assertRaisesRegex(SupervisorGone, "call `echo` of w was not sent, and not executed"):
                await client.call("w", "echo")
            path.touch()

        self.with_client(use)

    def test_wrong_use_names_the_mistake(self) -> None:
        async def use(client: Client, hall: Supervisor) -> None:
            with self.assertRaisesRegex(workhall.WorkhallError, "not connected: write `async with"):
                await Client(hall.socket).status()
            with self.assertRaisesRegex(workhall.WorkhallError, "connected already"):
                await client._open()
            with self.assertRaisesRegex(workhall.NoSupervisor, "nobody"):
                await Client.connect(str(hall.directory / "nobody"))
            await client.close()
            with self.assertRaisesRegex(SupervisorGone, "was closed: status was not sent"):
                await client.status()

        self.with_client(use)

    def test_what_waits_to_be_written_is_bounded(self) -> None:
        async def use(client: Client, hall: Supervisor) -> None:
            os.kill(hall.pid, signal.SIGSTOP)
            try:
                text = "x" * 100_000
                calls = [asyncio.ensure_future(client.call("w", "echo", text)) for _ in range(50)]
                ended, _ = await asyncio.wait(calls, timeout=5)
                self.assertEqual(len(ended), 50)
                for call in calls:
                    self.assertIsInstance(call.exception(), TimedOut)
                self.assertFalse(all(call.exception().sent for call in calls))  # type: ignore[union-attr]
            finally:
                os.kill(hall.pid, signal.SIGCONT)
            client.timeout = PATIENCE
            self.assertEqual(await client.call_and_wait("w", "echo", 1), [1])

        self.with_client(use, timeout=0.3)
