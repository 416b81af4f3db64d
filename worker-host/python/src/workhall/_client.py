"""The blocking client."""

from __future__ import annotations

from types import TracebackType
from typing import Deque, Iterator, Optional, Type, TypeVar

from . import _requests as requests
from ._caller import Caller
from ._link import Link, connect, socket_path
from ._requests import Address, Report, Request

T = TypeVar("T")


class Client(Caller):
    """A connection to a supervisor. NoSupervisor is raised if nobody answers.

    `socket`: else WORKHALL_SOCKET, else where the command line looks. `timeout`: seconds for the answers to requests, see
    Caller. It ends with `close`, or a `with` block. It does not connect again: make another Client.
    """

    def __init__(self, socket: Optional[str] = None, *, timeout: Optional[float] = 30.0) -> None:
        requests.millis(timeout, "timeout")
        self.timeout = timeout
        self.socket = socket_path(socket)
        self._link = Link(connect(self.socket, timeout), self.socket, self.signal_of)

    def _ask(self, request: Request[T], timeout: Optional[float]) -> T:
        requests.millis(timeout, "timeout")
        return self._link.ask(request, timeout)

    def _unheld(self) -> Deque[str]:
        return self._link.unheld

    def logs(
        self, worker: Optional[Address] = None, *, last: Optional[int] = None, follow: bool = False
    ) -> Iterator[Report]:
        """The lines that workers wrote, and with `follow` those that come from here on.

        Where lines have left before they could be told, `{"lost": n}` stands instead. Over a connection of its own.
        """
        return self._news(requests.follow("logs", worker, last, None, follow))

    def events(
        self,
        worker: Optional[Address] = None,
        *,
        last: Optional[int] = None,
        since: Optional[float] = None,
        follow: bool = False,
    ) -> Iterator[Report]:
        """What happened to workers and messages, not older than `since` seconds; else like `logs`."""
        return self._news(requests.follow("events", worker, last, since, follow))

    def _news(self, request: Request[None]) -> Iterator[Report]:
        with Client(self.socket, timeout=self.timeout) as own:
            ask = own._link.start(request)
            while own._link.wait(lambda: bool(ask.news) or ask.is_answered):
                while ask.news:
                    news = ask.news.popleft()
                    if news.get("lost"):
                        yield {"lost": news["lost"]}
                    yield from news["items"]
                if ask.is_answered:
                    return request.finish(ask.answer())
            raise own._link.session.gone(ask.what, ask.sent)

    def close(self) -> None:
        """Ends the connection. What was posted stays posted."""
        self._link.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()
