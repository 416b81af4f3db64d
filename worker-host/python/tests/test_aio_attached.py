"""Attached workers for asyncio (rule P2), through a real supervisor."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Awaitable, Callable, List

import workhall
from workhall import Dead, Discarded, Failed, Refused, SupervisorGone, WorkhallError
from workhall.aio import AttachedWorker, Client, attach

from .harness import PATIENCE, Supervisor, TestCase
from .test_processes import WORKER


class Device:
    """State of an attached worker, whose tasks can be held."""

    def __init__(self) -> None:
        self.seen: List[Any] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.executing = 0

    @workhall.worker.method
    async def note(self, value: Any) -> int:
        self.executing += 1
        assert self.executing == 1, "another one is executed"
        await asyncio.sleep(0)
        self.seen.append(value)
        self.executing -= 1
        return len(self.seen)

    @workhall.worker.method
    def ordinary(self, value: Any) -> Any:
        return value

    @workhall.worker.method
    async def hold(self) -> str:
        self.begun.set()
        await self.go.wait()
        return "held"

    @workhall.worker.method
    async def fail(self) -> None:
        raise ValueError("no")


Use = Callable[[Client, Supervisor, Device], Awaitable[None]]


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Waits for a condition; the test has a time limit of its own."""
    while not await is_so():
        await asyncio.sleep(0.005)


class Attached(TestCase):
    def use(self, use: Use) -> None:
        hall = self.with_worker(WORKER)

        async def main() -> None:
            async with Client(hall.socket) as client:
                await asyncio.wait_for(use(client, hall, Device()), PATIENCE)

        asyncio.run(main())

    async def serve(self, hall: Supervisor, device: Device) -> "tuple[AttachedWorker, asyncio.Task[None]]":
        attached = await attach("device", socket=hall.socket)
        return attached, asyncio.ensure_future(attached.run(device))

    def test_p02_calls_reach_it_one_at_a_time_and_in_order(self) -> None:
        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            attached = await attach("device", socket=hall.socket)
            self.assertEqual((attached.name, attached.number), ("device", (await client.info("device"))["number"]))
            self.assertEqual((await client.info("device"))["type"], "attached")
            await client.call("device", "note", "before it runs")
            seen: List[Any] = []

            @attached.method
            async def who() -> Any:
                sender = attached.sender
                seen.append((attached.task.method, attached.task.wait, attached.cancelled, attached.end_requested))
                return sender and [sender.worker, sender.number]

            @attached.method("calls back")
            async def calls_back() -> bool:
                return bool(await attached.reply("echo", "back"))

            running = asyncio.ensure_future(attached.run(device))
            results = await asyncio.gather(*(client.call_and_wait("device", "note", n) for n in range(100)))
            self.assertEqual(results, list(range(2, 102)))
            self.assertEqual(device.seen, ["before it runs", *range(100)])
            # Calls of which nobody waits for the outcome too.
            for n in range(100, 200):
                await client.call("device", "note", n)
            self.assertEqual(await client.call_and_wait(attached.number, "note", "last"), 202)
            self.assertEqual(device.seen[1:-1], list(range(200)))
            value = [1.5, "é", b"\x00\xff", {"a": [None]}]
            self.assertEqual(await client.call_and_wait("device", "ordinary", value), value)
            # It calls workers while it executes and otherwise, and workers call it.
            self.assertEqual(await client.call_and_wait("w", "call", "device", "who"), ["w", (await client.info("w"))["number"]])
            self.assertTrue(await client.call_and_wait("w", "call", "device", "calls back"))
            self.assertEqual(await attached.call_and_wait("w", "echo", 5), [5])
            self.assertEqual(seen, [("who", True, False, False)])
            await attached.leave()
            await running

        self.use(use)

    def test_d03_what_a_method_raises_or_cannot_return_fails_its_message_alone(self) -> None:
        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            attached = await attach("device", socket=hall.socket)
            heard: List[str] = []
            attached.on_error(lambda error: heard.append(attached.task.method))

            @attached.method
            async def cancels() -> None:
                waits = asyncio.ensure_future(asyncio.sleep(PATIENCE))
                waits.cancel()
                await waits

            @attached.method
            async def unsendable() -> Any:
                return {"a": [math.nan]}

            running = asyncio.ensure_future(attached.run(device))
            for method, args, said in [
                ("fail", (), "ValueError: no\nTraceback"),
                ("m", (), "there is no method `m`: this worker has `cancels`, `unsendable`, `fail`, `hold`, `note`, `ordinary`"),
                ("note", (), r"the arguments of `note` do not fit: missing a required argument: 'value'"),
                ("cancels", (), "`cancels` was cancelled from inside"),
                ("unsendable", (), r"cannot be sent: result\.a\[0\] is nan"),
            ]:
                with self.assertRaisesRegex(Failed, said):
                    await client.call_and_wait("device", method, *args)
            self.assertEqual(heard, ["fail", "m", "note", "cancels", "unsendable"])
            self.assertEqual(await client.call_and_wait("device", "note", 1), 1)
            await attached.leave()
            await running

        self.use(use)

    def test_d03_what_is_no_exception_fails_its_message_alone_and_who_cancels_run_ends_it(self) -> None:
        class Base(BaseException):
            pass

        kinds = {"cancelled": asyncio.CancelledError, "base": Base, "generator": GeneratorExit, "value": ValueError}

        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            attached = await attach("device", socket=hall.socket)

            @attached.method
            def ordinary_raises(kind: str) -> None:
                raise kinds[kind]("odd")

            @attached.method
            async def raises(kind: str) -> None:
                raise kinds[kind]("odd")

            @attached.method
            async def raises_later(kind: str) -> None:
                await asyncio.sleep(0)
                raise kinds[kind]("odd")

            @attached.on_error
            def hook(error: Exception) -> None:
                raise Base("the hook")

            running = asyncio.ensure_future(attached.run(device))
            for method in ("ordinary_raises", "raises", "raises_later"):
                for kind, said in [
                    ("base", "Base: odd"),
                    ("generator", "GeneratorExit: odd"),
                    ("cancelled", "CancelledError: odd|was cancelled from inside"),
                    ("value", "(?s)ValueError: odd.*the error hook failed itself: .*Base: the hook"),
                ]:
                    with self.assertRaisesRegex(Failed, said):
                        await client.call_and_wait("device", method, kind)
            holding = asyncio.ensure_future(client.call_and_wait("device", "hold"))
            await device.begun.wait()
            running.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await running
            with self.assertRaises(Dead):
                await holding

        self.use(use)

    def test_p02_k10_a_kill_only_empties_its_mailbox(self) -> None:
        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            attached, running = await self.serve(hall, device)
            holding = asyncio.ensure_future(client.call_and_wait("device", "hold"))
            await device.begun.wait()
            pending = asyncio.ensure_future(client.call_and_wait("device", "note", 1))
            while (await client.info("device"))["pending"] != 1:
                pass
            self.assertEqual((await client.kill("device")).discarded, 1)
            with self.assertRaises(Discarded):
                await pending
            device.go.set()
            self.assertEqual(await holding, "held")
            self.assertEqual(await client.call_and_wait("device", "note", "after"), 1)
            await attached.leave()
            await running

        self.use(use)

    def test_a_task_that_is_not_wanted_any_more_sees_it(self) -> None:
        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            attached = await attach("device", socket=hall.socket)

            @attached.method
            async def until_cancelled() -> str:
                device.begun.set()
                while not attached.cancelled:
                    await asyncio.sleep(0.001)
                return "seen"

            running = asyncio.ensure_future(attached.run())
            waiting = asyncio.ensure_future(client.call_and_wait("device", "until_cancelled"))
            await device.begun.wait()
            self.assertTrue((await client.cancel((await client.info("device"))["running"]["message"])).running)
            self.assertEqual(await waiting, "seen")
            await attached.leave()
            await running

        self.use(use)

    def test_p02_a_task_that_is_cancelled_before_it_is_begun_is_not_begun(self) -> None:
        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            def post(what: str, name: str = "device") -> str:
                """Posts one that the process has then, while the event loop stands still. Returns its id."""
                self.assertEqual(hall.cli("call", name, "note", what).returncode, 0)
                running = None
                while running is None:
                    running = json.loads(hall.cli("info", name, "--json").stdout)["running"]
                return str(running["message"])

            attached = await attach("device", socket=hall.socket)
            session = attached._connected().session
            # It has come before `run`, and its cancel is not read yet.
            message = post("before it runs")
            while not session.tasks:
                await asyncio.sleep(0)
            self.assertEqual(hall.cli("cancel", message).returncode, 0)
            running = asyncio.ensure_future(attached.run(device))
            self.assertEqual(await client.call_and_wait("device", "note", 1), 1)
            # Both are read at once.
            self.assertEqual(hall.cli("cancel", post("while it runs")).returncode, 0)
            self.assertEqual(await client.call_and_wait("device", "note", 2), 2)
            self.assertEqual(device.seen, [1, 2])
            self.assertEqual((await client.status())["ledger"]["discarded"], 2)
            with self.assertRaisesRegex(WorkhallError, "no task is executed"):
                attached.task
            await attached.leave()
            await running
            # As it is mostly written, without a task of its own.
            direct = await attach("direct", socket=hall.socket)
            message = post("before it runs, too", "direct")
            while not direct._connected().session.tasks:
                await asyncio.sleep(0)
            self.assertEqual(hall.cli("cancel", message).returncode, 0)

            async def leaves() -> None:
                while (await client.info("direct"))["running"] is not None:
                    pass
                await direct.leave()

            leaving = asyncio.ensure_future(leaves())
            await direct.run(device)
            await leaving
            self.assertEqual(device.seen, [1, 2])

        self.use(use)

    def test_p02_a_name_that_is_taken_is_refused(self) -> None:
        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            async with await attach("device", socket=hall.socket):
                with self.assertRaisesRegex(Refused, "refused: name_taken: .*device") as raised:
                    await attach("device", socket=hall.socket)
                self.assertEqual(raised.exception.reason, "name_taken")
                with self.assertRaises(Refused) as raised:
                    await attach("a\nb", socket=hall.socket)
                self.assertEqual(raised.exception.reason, "bad_name")

            async def is_free() -> bool:
                return "device" not in [row["name"] for row in await client.ps()]

            await until(is_free)
            await (await attach("device", socket=hall.socket)).leave()

        self.use(use)

    def test_p02_it_leaves_after_the_current_task_or_after_all(self) -> None:
        async def use(client: Client, hall: Supervisor, _: Device) -> None:
            for drain in (False, True):
                device = Device()
                attached, running = await self.serve(hall, device)
                calls = [asyncio.ensure_future(client.call_and_wait("device", "hold"))]
                await device.begun.wait()
                calls += [asyncio.ensure_future(client.call_and_wait("device", "note", n)) for n in range(3)]
                while (await client.info("device"))["pending"] != 3:
                    pass
                await attached.leave(drain=drain)
                device.go.set()
                await running
                ends = await asyncio.gather(*calls, return_exceptions=True)
                if drain:
                    self.assertEqual(ends, ["held", 1, 2, 3])
                else:
                    self.assertEqual(ends[0], "held")
                    self.assertEqual([end.reason for end in ends[1:] if isinstance(end, Dead)], ["abandoned"] * 3)
                with self.assertRaisesRegex(SupervisorGone, "was not sent, and not executed"):
                    await attached.call("w", "echo")
                with self.assertRaisesRegex(WorkhallError, "has ended: attach again"):
                    await attached.run()

        self.use(use)

    def test_p02_a_second_run_only_raises(self) -> None:
        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            attached = await attach("device", socket=hall.socket)

            @attached.method
            async def run_again() -> None:
                await attached.run(device)

            again = "it runs already, or has ended: attach again"
            running = asyncio.ensure_future(attached.run(device))
            with self.assertRaisesRegex(Failed, again):
                await client.call_and_wait("device", "run_again")
            with self.assertRaisesRegex(WorkhallError, again):
                await attached.run(device)
            self.assertEqual(await client.call_and_wait("device", "note", 1), 1)
            await attached.leave()
            await running

        self.use(use)

    def test_p02_who_cancels_it_cancels_its_task(self) -> None:
        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            attached = await attach("device", socket=hall.socket)
            ends: List[str] = []

            @attached.method
            async def cleans_up() -> None:
                try:
                    device.begun.set()
                    await device.go.wait()
                finally:
                    ends.append("cleaned up")

            running = asyncio.ensure_future(attached.run())
            waiting = asyncio.ensure_future(client.call_and_wait("device", "cleans_up"))
            await device.begun.wait()
            running.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await running
            with self.assertRaises(Dead) as raised:
                await waiting
            self.assertEqual((raised.exception.reason, ends), ("crashed", ["cleaned up"]))

        self.use(use)

    def test_p02_who_cancels_it_again_cancels_its_task_again_and_it_waits_for_that_all_the_same(self) -> None:
        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            attached = await attach("device", socket=hall.socket)
            ends: List[Any] = []
            cleans_up = asyncio.Event()

            @attached.method
            async def stubborn() -> None:
                try:
                    device.begun.set()
                    await device.go.wait()
                finally:
                    try:
                        cleans_up.set()
                        await device.go.wait()
                    finally:
                        # The connection is still there.
                        ends.append(await attached.call_and_wait("w", "echo", "cleaned up"))

            running = asyncio.ensure_future(attached.run())
            waiting = asyncio.ensure_future(client.call_and_wait("device", "stubborn"))
            await device.begun.wait()
            running.cancel()
            await cleans_up.wait()
            running.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await running
            self.assertEqual(ends, [["cleaned up"]])
            with self.assertRaises(Dead):
                await waiting

        self.use(use)

    def test_p02_it_learns_that_the_supervisor_is_gone_or_stops(self) -> None:
        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            other = self.with_worker(WORKER)
            attached, running = await self.serve(other, device)
            self.assertEqual(await attached.call_and_wait("w", "echo"), [])
            other.kill()
            with self.assertRaises(SupervisorGone):
                await running
            attached, running = await self.serve(hall, device)
            await client.call_and_wait("device", "note", 1)
            # A supervisor that stops asks for the end.
            stopping = asyncio.get_running_loop().run_in_executor(None, hall.stop)
            await running
            await stopping

        self.use(use)

    def test_wrong_use_names_the_mistake(self) -> None:
        async def use(client: Client, hall: Supervisor, device: Device) -> None:
            with self.assertRaisesRegex(TypeError, "a worker's name is a text, not 5"):
                await attach(5, socket=hall.socket)  # type: ignore[arg-type]
            with self.assertRaises(workhall.NoSupervisor):
                await attach("device", socket=str(hall.directory / "nobody"))
            attached = await attach("device", socket=hall.socket)
            with self.assertRaisesRegex(WorkhallError, "nothing would be executed"):
                await attached.leave(drain=True)
            with self.assertRaisesRegex(WorkhallError, "no task is executed"):
                attached.sender
            with self.assertRaisesRegex(TypeError, "int has no method"):
                await attached.run(5)
            with self.assertRaisesRegex(TypeError, "`numbers` is a generator"):

                @attached.method
                async def numbers() -> Any:
                    yield 1

            await attached.close()

        self.use(use)
        # A blocking worker executes no coroutines: known when the object is given to it.
        with self.assertRaisesRegex(TypeError, "`fail` is an async function.*workhall.aio"):
            workhall.worker._with(asyncio.run(self.made()))

    async def made(self) -> Device:
        return Device()
