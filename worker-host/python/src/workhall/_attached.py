"""A worker that somebody else has started (rule P2)."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Optional, Type

from . import _requests as requests
from ._errors import SupervisorGone, TimedOut, WorkhallError
from ._json import line
from ._link import Link, connect, socket_path
from ._worker import PROTOCOL_VERSION, Worker


class AttachedWorker(Worker):
    """This program under a name of its own: see `attach`.

    Methods are declared as for a worker. `run` executes the calls that come, one at a time and in order, and may stand in a thread.
    A kill only empties the mailbox.
    """

    def __init__(self, name: str, socket: Optional[str], timeout: Optional[float]) -> None:
        super().__init__()
        requests.millis(timeout, "timeout")
        request = requests.attach(PROTOCOL_VERSION, name)
        path = socket_path(socket)
        link = Link(connect(path, timeout), path, self.signal_of)
        try:
            ask = link.start(request)
            session = link.session
            if not link.wait_for(lambda: session.welcome is not None or ask.is_answered, timeout):
                raise session.gone(ask.what, ask.sent) if session.has_ended else TimedOut(ask.what, timeout or 0.0, None)
            link.forget(ask)
            if session.welcome is None:
                request.finish(ask.answer())
        except BaseException:
            link.close()
            raise
        self._link = link
        self._has_run = False
        self._opening = threading.Lock()

    def _open(self) -> Link:
        with self._opening:
            if self._has_run:
                raise WorkhallError("it runs already, or has ended: attach again")
            self._has_run = True
        return self._running()

    def _greet(self, link: Link, window: int) -> None:
        # A task may have come with the welcome; what has come since, like its cancel, is read before it is begun.
        while link.look():
            pass

    def _is_orphan(self, parent: int) -> bool:
        return False

    def run(self, state: object = None, *, window: int = 1) -> None:
        """Executes tasks until it has left, or the supervisor stops. SupervisorGone is raised if that is gone; WorkhallError if it
        runs already, also in another thread, which goes on, or has ended.

        `state`: an object whose marked methods may be called too. One task comes at a time, so `window` is 1.
        """
        methods = self._with(state)
        # Who may not run it does not end it either.
        link = self._open()
        try:
            self._run(link, methods, 1)
            session = link.session
            if session.has_ended and not session.was_killed and not session.was_closed:
                raise SupervisorGone(session.socket, "", True, session.unanswered, session.complaint)
        finally:
            self.close()

    def leave(self, *, drain: bool = False) -> None:
        """Gives the name back: `run` returns after the current task. With `drain` what is pending is executed before; without it
        becomes dead letters."""
        if self._has_run:
            self._running().write(line("leave", {"drain": drain}))
        elif drain:
            raise WorkhallError("nothing would be executed: `leave(drain=True)` is for use while `run` runs")
        else:
            self.close()

    def close(self) -> None:
        """Ends the connection. A task that is executed is a dead letter then, and so is what is pending."""
        self._running().close()

    def __enter__(self) -> "AttachedWorker":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()


def attach(name: str, *, socket: Optional[str] = None, timeout: Optional[float] = 30.0) -> AttachedWorker:
    """Connects to the supervisor and takes a name (rule P2); who calls it reaches this program.

    `socket`: else WORKHALL_SOCKET, else where the command line looks. `timeout`: seconds for the answer. Refused is raised if
    the name is taken, is that of a class, or the user may not; NoSupervisor if nobody answers.
    """
    return AttachedWorker(name, socket, timeout)
