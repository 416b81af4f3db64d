"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, AsyncIterator, Awaitable, Callable, Deque, Dict, List, Mapping, Optional, Type, TypeVar

from . import _requests as requests
from ._answers import Cancelled, Killed, KillReport, Receipt
from ._errors import Ignored, NoSupervisor, TimedOut, WorkhallError
from ._link import socket_path
from ._requests import Address, Report, Request
from ._session import Ask, Session

T = TypeVar("T")


class Caller:
    """The requests, as coroutines: those of `workhall.Client`, where they are documented."""

    timeout: Optional[float]
    socket: str
    _conversation: Optional["Conversation"] = None

    def __init__(self, socket: Optional[str], timeout: Optional[float]) -> None:
        requests.millis(timeout, "timeout")
        self.timeout = timeout
        self.socket = socket_path(socket)

    async def _converse(self) -> "Conversation":
        """Connects. NoSupervisor is raised if nobody answers."""
        loop = asyncio.get_running_loop()
        session = Session(self.socket, self.signal_of)
        connecting = loop.create_unix_connection(lambda: Conversation(session), self.socket)
        try:
            _, conversation = await asyncio.wait_for(connecting, self.timeout)
        except (OSError, asyncio.TimeoutError) as error:
            why = getattr(error, "strerror", None) or str(error) or "the time ran out"
            raise NoSupervisor(self.socket, why) from None
        self._conversation = conversation
        return conversation

    async def _ask(self, request: Request[T], timeout: Optional[float]) -> T:
        requests.millis(timeout, "timeout")
        conversation = self._connected()
        ask = conversation.begin(request)
        try:
            await asyncio.wait_for(conversation.answer(ask), timeout)
        except asyncio.TimeoutError:
            # What has come meanwhile counts.
            if not ask.is_answered:
                raise TimedOut(ask.what, timeout or 0.0, ask.message, ask.sent) from None
        finally:
            conversation.session.pending.pop(ask.ref, None)
        return request.finish(ask.answer())

    def _connected(self) -> "Conversation":
        if self._conversation is None:
            raise WorkhallError("the client is not connected: write `async with Client() as client`, or `await Client.connect()`")
        return self._conversation

    async def call(
        self,
        worker: Address,
        method: str = "",
        *args: Any,
        existing: bool = False,
        expires: Optional[float] = None,
        after: Optional[float] = None,
    ) -> Receipt:
        return await self._ask(requests.call(worker, method, args, existing, expires, after), self.timeout)

    async def call_and_wait(
        self,
        worker: Address,
        method: str = "",
        *args: Any,
        timeout: Optional[float] = None,
        existing: bool = False,
        expires: Optional[float] = None,
        after: Optional[float] = None,
    ) -> Any:
        return await self._ask(requests.call_and_wait(worker, method, args, existing, expires, after), timeout)

    async def cancel(self, message: int) -> Cancelled:
        return await self._ask(requests.cancel(message), self.timeout)

    async def kill(
        self, worker: Address, *, within: Optional[float] = None, drain: bool = False, now: bool = False
    ) -> Killed:
        return await self._ask(requests.kill(requests.address(worker), within, drain, now), self.timeout)

    async def kill_and_wait(
        self,
        worker: Address,
        *,
        timeout: Optional[float] = None,
        within: Optional[float] = None,
        drain: bool = False,
        now: bool = False,
    ) -> KillReport:
        return await self._ask(requests.kill_and_wait(worker, within, drain, now), timeout)

    async def ps(self) -> List[Report]:
        rows: List[Report] = []
        while True:
            page = await self._ask(requests.ps_page(rows[-1]["at"] if rows else None), self.timeout)
            rows += page
            if len(page) < requests.PAGE:
                return rows

    async def info(self, worker: Address) -> Report:
        return await self._ask(requests.info(worker), self.timeout)

    async def status(self) -> Report:
        return await self._ask(requests.status(), self.timeout)

    async def wait(self, worker: Address, until: str = "idle", *, timeout: Optional[float] = None) -> None:
        await self._ask(requests.wait(worker, until), timeout)

    async def pause(self, worker: Address) -> None:
        await self._ask(requests.pause(worker), self.timeout)

    async def resume(self, worker: Address) -> None:
        await self._ask(requests.resume(worker), self.timeout)

    async def dead(
        self, worker: Optional[str] = None, *, limit: Optional[int] = None, before: Optional[int] = None
    ) -> Report:
        return await self._ask(requests.dead_page(worker, limit, before), self.timeout)

    async def dead_show(self, message: int) -> Report:
        return await self._ask(requests.dead_show(message), self.timeout)

    async def requeue(
        self, message: Optional[int] = None, *, worker: Optional[str] = None, everything: bool = False
    ) -> Report:
        return await self._ask(requests.requeue(message, worker, everything), self.timeout)

    async def dead_drop(
        self, message: Optional[int] = None, *, worker: Optional[str] = None, everything: bool = False
    ) -> int:
        return await self._ask(requests.dead_drop(message, worker, everything), self.timeout)

    async def run_process(
        self, kind: str, method: str = "", *args: Any, name: Optional[str] = None, unique: bool = False
    ) -> Receipt:
        return await self._ask(requests.run_process(kind, method, args, name, unique), self.timeout)

    async def run_process_and_wait(
        self,
        kind: str,
        method: str = "",
        *args: Any,
        timeout: Optional[float] = None,
        name: Optional[str] = None,
        unique: bool = False,
    ) -> Any:
        return await self._ask(requests.run_process_and_wait(kind, method, args, name, unique), timeout)

    async def reload(self, *, restart: bool = False, timeout: Optional[float] = None) -> Report:
        return await self._ask(requests.reload(restart), timeout)

    async def upgrade(self, binary: Optional[str] = None, *, timeout: Optional[float] = None) -> Report:
        return await self._ask(requests.upgrade(binary), timeout)

    async def signal(self, description: Optional[str] = None, *, keep: Optional[float] = None) -> "Signal":
        identifier = await self._ask(requests.signal_new(description, keep), self.timeout)
        return Signal(self, identifier, self._connected().unheld if keep is None else None)

    def signal_of(self, identifier: str) -> "Signal":
        return Signal(self, requests.signal_id(identifier), None)

    def logs(
        self, worker: Optional[Address] = None, *, last: Optional[int] = None, follow: bool = False
    ) -> AsyncIterator[Report]:
        return self._news(requests.follow("logs", worker, last, None, follow))

    def events(
        self,
        worker: Optional[Address] = None,
        *,
        last: Optional[int] = None,
        since: Optional[float] = None,
        follow: bool = False,
    ) -> AsyncIterator[Report]:
        return self._news(requests.follow("events", worker, last, since, follow))

    async def _news(self, request: Request[None]) -> AsyncIterator[Report]:
        async with Client(self.socket, timeout=self.timeout) as own:
            conversation = own._connected()
            ask = conversation.begin(request)
            while True:
                await conversation.something(ask)
                while ask.news:
                    news = ask.news.popleft()
                    if news.get("lost"):
                        yield {"lost": news["lost"]}
                    for item in news["items"]:
                        yield item
                if ask.is_answered:
                    request.finish(ask.answer())
                    return

    async def close(self) -> None:
        """Ends the connection. What was posted stays posted; who waits on it learns that it has ended."""
        if self._conversation is not None:
            await self._conversation.close()


class Client(Caller):
    """A connection to a supervisor, for one event loop: `await Client.connect(…)`, or `async with Client(…) as client`.

    `socket`: else WORKHALL_SOCKET, else where the command line looks. `timeout`: for how many seconds the answers to requests
    are waited for; None is for ever.
    """

    def __init__(self, socket: Optional[str] = None, *, timeout: Optional[float] = 30.0) -> None:
        super().__init__(socket, timeout)

    @classmethod
    async def connect(cls, socket: Optional[str] = None, *, timeout: Optional[float] = 30.0) -> "Client":
        """A client that is connected. NoSupervisor is raised if nobody answers."""
        client = cls(socket, timeout=timeout)
        await client._open()
        return client

    async def _open(self) -> None:
        if self._conversation is not None:
            raise WorkhallError("the client is connected already, or was closed: make another")
        await self._converse()

    async def __aenter__(self) -> "Client":
        if self._conversation is None:
            await self._open()
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()


class Conversation(asyncio.Protocol):
    """The connection, and its session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.unheld: Deque[str] = deque()
        self._transport: Optional[asyncio.Transport] = None
        self._ended = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        #: Called when something has come, or the connection has ended.
        self.changed: Callable[[], None] = _nobody

    def begin(self, request: Request[Any]) -> Ask:
        ask = self.session.begin(request)
        ask.sent = False
        return ask

    async def answer(self, ask: Ask) -> None:
        """Sends a request and waits until it is answered."""
        while not ask.is_answered:
            await self.something(ask)

    async def something(self, ask: Ask) -> None:
        """Waits until something has come for a request, which is sent before if it was not."""
        if not ask.sent:
            await self._send(ask)
        if ask.news or ask.is_answered:
            return
        if self.session.has_ended:
            raise self.session.gone(ask.what, ask.sent)
        come: "asyncio.Future[None]" = asyncio.get_running_loop().create_future()
        ask.wake = lambda: None if come.done() else come.set_result(None)
        await come

    async def _send(self, ask: Ask) -> None:
        await self._writable(ask.what)
        ask.sent = True
        self._write(ask.data)

    async def say(self, data: bytes, what: str) -> None:
        """Sends what has no answer. SupervisorGone if the connection has ended."""
        await self._writable(what)
        self._write(data)

    async def _writable(self, what: str) -> None:
        # The supervisor may read slowly; what waits to be written is bounded.
        await self._room.wait()
        if self.session.has_ended or self._transport is None:
            raise self.session.gone(what, sent=False)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        freed = b"".join(b'{"signal_free":{"signal":"%s"}}\n' % self.unheld.popleft().encode() for _ in range(len(self.unheld)))
        self._transport.write(freed + data)

    async def finish(self) -> None:
        """Ends the connection when all that was written is on its way."""
        if self._transport is not None:
            self._transport.close()
        await self._ended.wait()

    async def close(self) -> None:
        if not self.session.has_ended:
            self.session.was_closed = True
        if self._transport is not None:
            self._transport.abort()
        await self._ended.wait()

    # ---- what asyncio calls ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.session.feed(data)
        self.changed()

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, error: Optional[Exception]) -> None:
        self.session.end()
        self._room.set()
        self._ended.set()
        for ask in list(self.session.pending.values()):
            ask.wake()
        self.changed()


def _nobody() -> None:
    """Who waits for an answer is told by that."""


class Signal:
    """A signal, as `workhall.Signal`, whose methods are coroutines here."""

    def __init__(self, client: Caller, identifier: str, unheld: Optional[Deque[str]]) -> None:
        #: 32 hexadecimal digits that nobody can guess.
        self.id = identifier
        self._client = client
        self._unheld = unheld

    @property
    def __workhall_signal__(self) -> str:
        return self.id

    async def trigger(self, values: Optional[Mapping[str, Any]] = None) -> bool:
        for key, value in (values or {}).items():
            try:
                await self.set(key, value)
            except Ignored as error:
                if error.reason == "already_triggered":
                    return False
                raise
        return await self._client._ask(requests.signal_trigger(self.id), self._client.timeout)

    async def set(self, key: str, value: Any) -> None:
        await self._client._ask(requests.signal_set(self.id, key, value), self._client.timeout)

    async def wait(self, timeout: Optional[float] = None) -> bool:
        request = requests.signal_wait(self.id, timeout)
        longest = None if timeout is None or self._client.timeout is None else timeout + self._client.timeout
        return await self._client._ask(request, longest)

    async def signaled(self) -> bool:
        return bool((await self._look())["triggered"])

    async def description(self) -> Optional[str]:
        description = (await self._look())["description"]
        return None if description is None else str(description)

    async def values(self) -> Dict[str, Any]:
        values = (await self._look())["values"]
        if values is None:
            raise WorkhallError("the signal was not triggered yet: its values are read after that, so wait for it first")
        return dict(values)

    async def get(self, key: str, default: Any = None) -> Any:
        return (await self.values()).get(key, default)

    def _look(self) -> Awaitable[Report]:
        return self._client._ask(requests.signal_get(self.id), self._client.timeout)

    async def free(self) -> None:
        self._unheld = None
        await self._client._ask(requests.signal_free(self.id), self._client.timeout)

    async def __aenter__(self) -> "Signal":
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._unheld is not None:
            await self.free()

    def __del__(self) -> None:
        unheld = getattr(self, "_unheld", None)
        if unheld is not None:
            unheld.append(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signal) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Signal({self.id!r})"
