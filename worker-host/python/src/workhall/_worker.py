"""A worker: methods that messages execute, one at a time, until the supervisor asks for the end or is gone."""

from __future__ import annotations

import io
import os
import socket
import stat
import sys
import time
from typing import Any, Deque, Dict, List, Optional, TypeVar

from . import _requests as requests
from ._answers import Killed, Receipt, Sender
from ._caller import Caller
from ._errors import CannotSend, MethodError, NotStartedBySupervisor, WorkhallError
from ._json import line
from ._link import Link
from ._mark_page import MarkPage, is_sound
from ._methods import Method, Methods, unknown
from ._requests import Request
from ._session import Task

T = TypeVar("T")

PROTOCOL_VERSION = 1
#: How many unsettled tasks a worker takes at once, unless it says otherwise.
WINDOW_DEFAULT = 64
# What has ended is said before the next task that begins so long, in seconds, after the last word.
_SAY_WITHIN = 0.001
# A result for which nobody waits is not sent. A larger one, in bytes, is: it may be too large for the wire, and then its method has failed.
UNHEARD_BYTES_MAX = 32 << 10

_taken: List[int] = []


class Worker(Methods, Caller):
    """The worker that this process is. There is one, `workhall.worker`, and functions are its methods:

        from workhall import worker

        @worker.method
        def add(amount): ...

        worker.run()

    With the requests of Caller it calls and kills others, in a method or in any thread while `run` runs. No time limit
    applies to them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._link: Optional[Link] = None
        self._page: Optional[MarkPage] = None

    # ---- who this is ----------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The worker's name; like number and generation it is known before `run`."""
        return str(self._identity("worker", "WORKHALL_WORKER"))

    @property
    def number(self) -> int:
        """The worker's number."""
        return int(self._identity("number", "WORKHALL_NUMBER"))

    @property
    def generation(self) -> int:
        """Which life of the worker's process this is, from 1."""
        return int(self._identity("generation", "WORKHALL_GENERATION"))

    def _identity(self, field: str, variable: str) -> Any:
        if self._link is not None and self._link.session.welcome is not None:
            return self._link.session.welcome[field]
        try:
            return os.environ[variable]
        except KeyError:
            raise NotStartedBySupervisor(f"{variable} is not set") from None

    # ---- the task that is executed --------------------------------------------------------------------------------

    @property
    def task(self) -> Task:
        """The task that is executed: `id`, `method`, `args`, `sender`, `wait` (somebody waits for its outcome)."""
        task = None if self._link is None else self._link.session.current
        if task is None:
            raise WorkhallError("no task is executed: this is for use in a method")
        return task

    @property
    def sender(self) -> Optional[Sender]:
        """Who sent the task; None for a client that is not a worker, who cannot be called back (rule W8)."""
        return self.task.sender

    @property
    def end_requested(self) -> bool:
        """Whether this worker was killed: a long task may look here and end early; nothing interrupts it (rule K3)."""
        link = self._running()
        link.look()
        return link.session.is_ending or (self._page is not None and self._page.is_stopped)

    @property
    def cancelled(self) -> bool:
        """Whether the task that is executed is not wanted any more. Nothing interrupts it; it is settled as ever."""
        self._running().look()
        return self.task.cancelled

    def reply(self, method: str, *args: Any) -> Receipt:
        """Calls back the worker that sent the task (rule C11), by its number, so that a successor which has asked nothing
        gets no answer."""
        sender = self.sender
        if sender is None:
            raise CannotSend("the message was sent by a client, which cannot be called back")
        return self.call(sender.number, method, *args)

    def kill_self(self) -> Killed:
        """Kills this worker: what is pending is ignored, and the process ends after this task, the rest of which still runs (rule K3)."""
        return self._ask(requests.kill(None, None, False, False), None)

    def _running(self) -> Link:
        if self._link is None:
            raise WorkhallError("the worker does not run: this is for use in a method, or in a thread while `run` runs")
        return self._link

    def _ask(self, request: Request[T], timeout: Optional[float]) -> T:
        requests.millis(timeout, "timeout")
        return self._running().ask(request, timeout)

    def _unheld(self) -> Deque[str]:
        return self._running().unheld

    # ---- the loop -------------------------------------------------------------------------------------------------

    def run(self, state: object = None, *, window: int = WINDOW_DEFAULT) -> None:
        """Executes tasks until the supervisor asks for the end or is gone. Then the program should end.

        `state`: an object whose marked methods may be called too. `window`: how many unsettled tasks the process takes at once, 1 to
        1024. What was sent ahead is not lost by a crash and not executed after a kill.
        """
        if isinstance(window, bool) or not isinstance(window, int) or not 1 <= window <= 1024:
            raise ValueError(f"`window` is 1 to 1024, not {window!r}")
        methods = self._with(state)
        self._run(self._open(), methods, window)

    def _run(self, link: Link, methods: Dict[str, Method], window: int) -> None:
        # Without a page to mark what begins, only one task at a time keeps the promises.
        window = 1 if self._page is None else window
        # What is printed is a line in the log at once, not when the buffer is full.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
                stream.reconfigure(line_buffering=True)
        self._greet(link, window)
        try:
            self._serve(link, methods, window)
        finally:
            # A task that ends the process by sys.exit has not ended, but what came before it has.
            link.session.current = None
            link.write()

    def _open(self) -> Link:
        """Takes what the supervisor has handed over."""
        if self._link is not None:
            raise WorkhallError("the worker runs already, or has ended: a process runs one worker")
        connection = socket.socket(fileno=_inherited("WORKHALL_FD"))
        page = _inherited("WORKHALL_MARK_FD") if "WORKHALL_MARK_FD" in os.environ else None
        if page is not None and is_sound():
            self._page = MarkPage(page)
        self._link = Link(connection, os.environ.get("WORKHALL_SOCKET", "its socket"), self.signal_of)
        return self._link

    def _greet(self, link: Link, window: int) -> None:
        link.write(line("ready", {"protocol": PROTOCOL_VERSION, "window": window}))
        link.wait(lambda: link.session.welcome is not None or link.session.is_ending)
        if link.session.welcome is None and link.session.complaint is not None:
            raise WorkhallError(f"the supervisor did not understand: {link.session.complaint}")

    def _is_orphan(self, parent: int) -> bool:
        """What was sent ahead is not begun any more when the supervisor has died (rule D7)."""
        return os.getppid() != parent

    def _serve(self, link: Link, methods: Dict[str, Method], window: int) -> None:
        session, page, parent = link.session, self._page, os.getppid()
        unsent, sent = 0, time.monotonic()
        looked = sent
        while not session.is_ending:
            try:
                task = session.next = session.tasks.popleft()
            except IndexError:
                unsent = 0
                link.write()
                link.wait(lambda: bool(session.tasks) or session.is_ending or session.complaint is not None)
                if session.complaint is not None:
                    raise WorkhallError(f"the supervisor did not understand: {session.complaint}")
                continue
            now = time.monotonic()
            if self._is_orphan(parent):
                return
            if unsent and (not session.tasks or now - sent >= _SAY_WITHIN):
                # The last of a batch may take long: what has ended must not wait for it to be known.
                link.write()
                if session.has_ended:
                    return
                unsent, sent = 0, now
            if page is not None and (now - looked >= _SAY_WITHIN or page.cancels() != session.cancels):
                # What was sent ahead may not be wanted any more.
                link.look()
                looked = now
                if session.is_ending:
                    return
            if task.cancelled:
                # At once: a mark behind it would say that it was executed.
                link.write(line("dropped", {"id": task.id}))
                continue
            if page is not None and not page.begin(task.id):
                return
            session.current = task
            error = self._execute(link, methods, task)
            session.current = None
            unsent += 1
            if task.wait or error or page is None or unsent * 2 >= window:
                link.write()
                unsent = 0
                if session.has_ended:
                    # What was to be said was not heard: the task is not finished as far as anybody can know.
                    return
            if page is not None:
                page.finish(task.id)

    def _execute(self, link: Link, methods: Dict[str, Method], task: Task) -> bool:
        """Executes a task and says how it ended, or collects that. True if it failed."""
        try:
            method = methods.get(task.method)
            if method is None:
                raise unknown(task.method, list(methods))
            result = method.execute(task.args)
            try:
                data = line("done", {"id": task.id, "result": result})
            except CannotSend as error:
                raise MethodError(f"the result of `{task.method}` cannot be sent: {error}") from None
        except BaseException as error:
            # Also what is no Exception, like asyncio's CancelledError.
            link.write(line("failed", {"id": task.id, "error": self._failure(error)}), flush=False)
            return True
        if task.wait or len(data) > UNHEARD_BYTES_MAX:
            link.write(data, flush=False)
        else:
            link.settle_well(task.id)
        return False


def _inherited(variable: str) -> int:
    """The descriptor that a variable names, which the worker's own children do not inherit from here on."""
    text = os.environ.get(variable)
    if text is None:
        raise NotStartedBySupervisor(f"{variable} is not set")
    try:
        number = int(text)
        if number <= 2:
            raise ValueError("no descriptor that a supervisor hands over")
        if variable == "WORKHALL_FD" and not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise ValueError("no socket")
        os.set_inheritable(number, False)
    except (OSError, ValueError) as error:
        raise NotStartedBySupervisor(f"{variable} is `{text}`: {error}") from None
    if number in _taken:
        raise WorkhallError(f"{variable} was taken already: a process runs one worker")
    _taken.append(number)
    return number


#: The worker that this process is.
worker = Worker()
