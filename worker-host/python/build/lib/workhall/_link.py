"""A blocking connection that threads can share: whoever waits for an answer reads for all."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import weakref
from typing import Any, Callable, List, Optional, TypeVar

from ._errors import NoSupervisor, TimedOut, WorkhallError
from ._requests import Request
from ._session import Ask, Session

T = TypeVar("T")

# Settlements are collected up to so many bytes.
_WRITE_BYTES = 32 << 10
_READ_BYTES = 64 << 10

_links: "weakref.WeakSet[Link]" = weakref.WeakSet()


def socket_path(path: Optional[str]) -> str:
    """Where the supervisor listens, as for the command line."""
    if path:
        return os.fspath(path)
    if os.environ.get("WORKHALL_SOCKET"):
        return os.environ["WORKHALL_SOCKET"]
    if os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(os.environ["XDG_RUNTIME_DIR"], "workhall", "workhall.sock")
    return "/run/workhall/workhall.sock"


def connect(path: str, timeout: Optional[float]) -> socket.socket:
    """A connection to the supervisor, or NoSupervisor."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
        connection.settimeout(None)
        return connection
    except OSError as error:
        connection.close()
        raise NoSupervisor(path, error.strerror or str(error)) from None


class Link:
    """A connection and its session."""

    def __init__(self, connection: socket.socket, path: str, signal: Callable[[str], Any]) -> None:
        self.session = Session(path, signal)
        self._socket = connection
        # Guards the session; who waits for it to change waits here.
        self._changed = threading.Condition(threading.Lock())
        self._reading = False
        # Guards what is to be written. Taken before `_changed`, never while that is held.
        self._writing = threading.Lock()
        self._out = bytearray()
        # All tasks up to this one have ended well, nobody waits for those not settled yet, and it is not said yet.
        self._ended_well: Optional[int] = None
        self._is_copy = False
        _links.add(self)

    # ---- asking ---------------------------------------------------------------------------------------------------

    def ask(self, request: Request[T], timeout: Optional[float]) -> T:
        """Sends a request and waits for its answer, at most so many seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        ask = self.start(request, deadline)
        try:
            if not self.wait(lambda: ask.is_answered, deadline):
                if self.session.has_ended:
                    raise self.session.gone(ask.what, ask.sent)
                raise TimedOut(ask.what, timeout or 0.0, ask.message, ask.sent)
        finally:
            self.forget(ask)
        return request.finish(ask.answer())

    def start(self, request: Request[Any], deadline: Optional[float] = None) -> Ask:
        """Sends a request. Who has its answer, or wants it no more, forgets it."""
        self._check_process()
        with self._changed:
            ask = self.session.begin(request)
        try:
            self.write(ask.data, deadline=deadline, ask=ask)
        except BaseException:
            self.forget(ask)
            raise
        return ask

    def forget(self, ask: Ask) -> None:
        with self._changed:
            self.session.pending.pop(ask.ref, None)

    # ---- reading --------------------------------------------------------------------------------------------------

    def wait(self, is_there: Callable[[], bool], deadline: Optional[float] = None) -> bool:
        """Takes in what comes until it is there. False at the supervisor's end, or when the time runs out."""
        looked = False
        while True:
            with self._changed:
                while True:
                    if is_there():
                        return True
                    if self.session.has_ended:
                        return False
                    left = None if deadline is None else deadline - time.monotonic()
                    # What has come already counts, even if no time is left.
                    if left is not None and left <= 0 and looked:
                        return False
                    if not self._reading:
                        self._reading = True
                        break
                    if not self._changed.wait(left):
                        looked = True
            looked = True
            self._read(left)

    def look(self) -> bool:
        """Takes in what has come, without waiting. True if something has."""
        with self._changed:
            if self._reading or self.session.has_ended:
                return False
            self._reading = True
        return self._read(0)

    def _read(self, seconds: Optional[float]) -> bool:
        """Reads once; true if something came. The caller has said that it reads."""
        data: Optional[bytes] = None
        try:
            data = self._receive(seconds)
        finally:
            with self._changed:
                self._reading = False
                try:
                    if data:
                        self.session.feed(data)
                    elif data is not None:
                        self.session.end()
                finally:
                    self._changed.notify_all()
        return bool(data)

    def _receive(self, seconds: Optional[float]) -> Optional[bytes]:
        """What comes; nothing at the end; None if the time runs out."""
        try:
            if seconds is None:
                return self._socket.recv(_READ_BYTES)
            if not self._poll(select.POLLIN, max(seconds, 0)):
                return None
            return self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            # Reset by the peer, or closed by another thread.
            return b""

    def _poll(self, events: int, seconds: Optional[float]) -> bool:
        poll = select.poll()
        poll.register(self._socket, events)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    # ---- writing --------------------------------------------------------------------------------------------------

    def settle_well(self, task: int) -> None:
        """The task has ended well and nobody waits for it: it is said together with others."""
        with self._writing:
            self._ended_well = task

    def write(
        self, data: bytes = b"", flush: bool = True, deadline: Optional[float] = None, ask: Optional[Ask] = None
    ) -> None:
        """Adds to what was collected, in order, and writes it all if it is to be flushed."""
        if not self._writing.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic())):
            if ask is not None:
                ask.sent = False
            return
        try:
            if self._ended_well is not None:
                self._out += b'{"done_all":{"id":%d}}\n' % self._ended_well
                self._ended_well = None
            self._out += data
            if flush or len(self._out) >= _WRITE_BYTES:
                self._send(deadline)
            if ask is not None and self.session.has_ended and len(self._out) >= len(data):
                ask.sent = False
        finally:
            self._writing.release()

    def _send(self, deadline: Optional[float]) -> None:
        try:
            while self._out and not self.session.has_ended:
                try:
                    sent = self._socket.send(self._out, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    if not self._make_room(deadline):
                        return
                    continue
                except OSError:
                    # What it has said last stands before its end.
                    while self.look():
                        pass
                    self._end()
                    return
                del self._out[:sent]
        except BaseException:
            # Nobody knows how much of it was written.
            self._end()
            raise

    def _make_room(self, deadline: Optional[float]) -> bool:
        """Waits until more can be written, and reads meanwhile: the supervisor may wait for that. False if the time runs out."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        with self._changed:
            reads = not self._reading
            self._reading = True
        if not reads:
            self._poll(select.POLLOUT, left)
            return True
        try:
            self._poll(select.POLLIN | select.POLLOUT, left)
        except BaseException:
            with self._changed:
                self._reading = False
            raise
        self._read(0)
        return True

    # ---- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the connection; who waits on it learns that."""
        if not self.session.has_ended:
            self.session.was_closed = True
        self._end()
        with self._changed:
            # Whoever reads has been woken; it must not read from a descriptor that is another's by then.
            self._changed.wait_for(lambda: not self._reading)
        self._socket.close()

    def _end(self) -> None:
        with self._changed:
            self.session.end()
            self._changed.notify_all()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _check_process(self) -> None:
        if self._is_copy:
            raise WorkhallError(
                "this process is a fork of the one that has the connection, which cannot be shared: make a Client of its own here"
            )


def _in_child() -> None:
    """A copy of the descriptor would keep the supervisor from seeing the end of the process that was forked."""
    links: List[Link] = list(_links)
    for link in links:
        link._is_copy = True
        link.session.end()
        link._socket.close()


os.register_at_fork(after_in_child=_in_child)
