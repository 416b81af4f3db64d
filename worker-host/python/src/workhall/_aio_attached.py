"""A worker that somebody else has started (rule P2), for asyncio."""

from __future__ import annotations

import asyncio
import inspect
from types import TracebackType
from typing import Any, Callable, Dict, Optional, Type

from . import _requests as requests
from ._aio import Caller
from ._answers import Receipt, Sender
from ._errors import CannotSend, MethodError, SupervisorGone, TimedOut, WorkhallError
from ._json import line
from ._methods import Method, Methods, unknown
from ._session import Task
from ._worker import PROTOCOL_VERSION, UNHEARD_BYTES_MAX


class AttachedWorker(Methods, Caller):
    """This program under a name of its own: see `attach`.

    Methods are coroutine functions, or ordinary ones, which hold up the event loop. `run` executes the calls that come, one at a time
    and in order: the next one begins when the coroutine of the last has ended. A kill only empties the mailbox. With the requests of
    Caller it calls and kills others, in a method or outside.
    """

    _may_be_async = True

    def __init__(self, socket: Optional[str], timeout: Optional[float]) -> None:
        Methods.__init__(self)
        Caller.__init__(self, socket, timeout)
        self._has_run = False
        self._changed = asyncio.Event()

    async def _attach(self, name: str) -> None:
        request = requests.attach(PROTOCOL_VERSION, name)
        conversation = await self._converse()
        conversation.changed = self._changed.set
        session = conversation.session
        try:
            ask = conversation.begin(request)
            await conversation.say(ask.data, ask.what)
            ask.sent = True
            answered = self._until(lambda: session.welcome is not None or ask.is_answered or session.has_ended)
            try:
                await asyncio.wait_for(answered, self.timeout)
            except asyncio.TimeoutError:
                raise TimedOut(ask.what, self.timeout or 0.0, None) from None
            session.pending.pop(ask.ref, None)
            if session.welcome is None:
                if not ask.is_answered:
                    raise session.gone(ask.what, ask.sent)
                request.finish(ask.answer())
        except BaseException:
            await conversation.close()
            raise

    async def _until(self, is_so: Callable[[], bool]) -> None:
        """Waits for something that can change when something has come."""
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    # ---- who this is, and what is executed ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The worker's name."""
        return str(self._welcome()["worker"])

    @property
    def number(self) -> int:
        """The worker's number."""
        return int(self._welcome()["number"])

    def _welcome(self) -> Dict[str, Any]:
        welcome = self._connected().session.welcome
        if welcome is None:
            raise WorkhallError("this is no worker yet: write `device = await workhall.aio.attach(name)`")
        return welcome

    @property
    def task(self) -> Task:
        """The task that is executed: `id`, `method`, `args`, `sender`, `wait` (somebody waits for its outcome)."""
        task = self._connected().session.current
        if task is None:
            raise WorkhallError("no task is executed: this is for use in a method")
        return task

    @property
    def sender(self) -> Optional[Sender]:
        """Who sent the task; None for a client that is not a worker, who cannot be called back (rule W8)."""
        return self.task.sender

    @property
    def end_requested(self) -> bool:
        """Whether the task that is executed is the last one. What comes is seen when a coroutine waits."""
        return self._connected().session.is_ending

    @property
    def cancelled(self) -> bool:
        """Whether the task that is executed is not wanted any more. Nothing interrupts it; it is settled as ever."""
        return self.task.cancelled

    async def reply(self, method: str, *args: Any) -> Receipt:
        """Calls back the worker that sent the task (rule C11), by its number."""
        sender = self.sender
        if sender is None:
            raise CannotSend("the message was sent by a client, which cannot be called back")
        return await self.call(sender.number, method, *args)

    # ---- the loop -------------------------------------------------------------------------------------------------

    async def run(self, state: object = None) -> None:
        """Executes tasks until it has left, or the supervisor stops. SupervisorGone is raised if that is gone.

        `state`: an object whose marked methods may be called too. Who cancels this cancels the task that is executed, and again where
        it cleans up; this ends when that has, and the task is a dead letter then, as is what is pending.
        """
        methods = self._with(state)
        conversation = self._connected()
        session = conversation.session
        if self._has_run or session.has_ended:
            raise WorkhallError("it runs already, or has ended: attach again")
        self._has_run = True
        try:
            # A task may have come with the welcome; what has come since, like its cancel, is read before it is begun: the event
            # loop looks for it during the first, and after those who waited already, as this does.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            while True:
                await self._until(lambda: bool(session.tasks) or session.is_ending or session.complaint is not None)
                if session.complaint is not None and not session.has_ended:
                    raise WorkhallError(f"the supervisor did not understand: {session.complaint}")
                if session.is_ending:
                    break
                task = session.next = session.tasks.popleft()
                if task.cancelled:
                    await conversation.say(line("dropped", {"id": task.id}), f"the settlement of message {task.id}")
                    continue
                session.current = task
                settlement = await self._execute(methods, task)
                session.current = None
                if session.has_ended:
                    break
                await conversation.say(settlement, f"the settlement of message {task.id}")
            if session.has_ended and not session.was_killed and not session.was_closed:
                raise SupervisorGone(session.socket, "", True, session.unanswered, session.complaint)
            await conversation.finish()
        finally:
            session.current = None
            await conversation.close()

    async def _execute(self, methods: Dict[str, Method], task: Task) -> bytes:
        """Executes a task. Returns what is to be said of it."""
        inner: "Optional[asyncio.Future[Any]]" = None
        try:
            method = methods.get(task.method)
            if method is None:
                raise unknown(task.method, list(methods))
            result = method.execute(task.args)
            if inspect.isawaitable(result):
                inner = _begun(result)
        except BaseException as error:
            # Also what is no Exception, like asyncio's CancelledError: who cancels `run` is heard only where this waits.
            return self._failed(task, error)
        if inner is not None:
            await _ended(inner)
        try:
            if inner is not None:
                if inner.cancelled():
                    raise MethodError(f"`{task.method}` was cancelled from inside")
                result = inner.result()
            try:
                data = line("done", {"id": task.id, "result": result})
            except CannotSend as error:
                raise MethodError(f"the result of `{task.method}` cannot be sent: {error}") from None
        except BaseException as error:
            return self._failed(task, error)
        return data if task.wait or len(data) > UNHEARD_BYTES_MAX else line("done", {"id": task.id})

    def _failed(self, task: Task, error: BaseException) -> bytes:
        return line("failed", {"id": task.id, "error": self._failure(error)})

    # ---- the end --------------------------------------------------------------------------------------------------

    async def leave(self, *, drain: bool = False) -> None:
        """Gives the name back: `run` returns after the current task. With `drain` what is pending is executed before; without it
        becomes dead letters. It returns at once, so that a method may say it."""
        if self._has_run:
            await self._connected().say(line("leave", {"drain": drain}), "leave")
        elif drain:
            raise WorkhallError("nothing would be executed: `leave(drain=True)` is for use while `run` runs")
        else:
            await self.close()

    async def __aenter__(self) -> "AttachedWorker":
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()


def _begun(result: Any) -> "asyncio.Future[Any]":
    """A method's coroutine, as a task of its own, so that one that is cancelled inside is told from the end of `run`."""

    async def wait() -> Any:
        return await result

    return asyncio.ensure_future(wait())


async def _ended(inner: "asyncio.Future[Any]") -> None:
    """Waits for its end. Who cancels this cancels it, each time anew, as where it is awaited; and waits for its end all the same."""
    cancelled: Optional[asyncio.CancelledError] = None
    while not inner.done():
        try:
            await asyncio.wait({inner})
        except asyncio.CancelledError as error:
            cancelled = error
            inner.cancel()
    if cancelled is not None:
        raise cancelled


async def attach(name: str, *, socket: Optional[str] = None, timeout: Optional[float] = 30.0) -> AttachedWorker:
    """Connects to the supervisor and takes a name (rule P2); who calls it reaches this program.

    `socket`: else WORKHALL_SOCKET, else where the command line looks. `timeout`: seconds for each answer; None is for ever. Refused is
    raised if the name is taken, is that of a class, or the user may not; NoSupervisor if nobody answers.
    """
    worker = AttachedWorker(socket, timeout)
    await worker._attach(name)
    return worker
