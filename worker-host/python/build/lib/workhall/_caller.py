"""What a blocking client and a worker have in common: all requests to the supervisor."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, TypeVar

from . import _requests as requests
from ._answers import Killed, KillReport, Receipt
from ._requests import Address, Report, Request

T = TypeVar("T")


class Caller:
    """The requests. Times are in seconds, with decimals. All may be used by several threads at a time.

    A worker is addressed by name (str) or number (int). Arguments and results are JSON values, `bytes` and signals.
    """

    #: For how long the answers to requests are waited for, in seconds; None is for ever. What waits for something else, like
    #: `call_and_wait`, has a `timeout` of its own.
    timeout: Optional[float] = None

    def _ask(self, request: Request[T], timeout: Optional[float]) -> T:
        raise NotImplementedError

    def call(
        self,
        worker: Address,
        method: str = "",
        *args: Any,
        existing: bool = False,
        expires: Optional[float] = None,
        after: Optional[float] = None,
    ) -> Receipt:
        """Posts a message and returns its receipt; the execution is not waited for (rule C1).

        `existing`: only if the worker exists already (C12). `expires`: not to be begun later than in so many seconds;
        `after`: it enters the mailbox after so many (C13). What the rules ignore is a receipt that is false (C4). Refused
        is raised.
        """
        return self._ask(requests.call(worker, method, args, existing, expires, after), self.timeout)

    def call_and_wait(
        self,
        worker: Address,
        method: str = "",
        *args: Any,
        timeout: Optional[float] = None,
        existing: bool = False,
        expires: Optional[float] = None,
        after: Optional[float] = None,
    ) -> Any:
        """Posts a message and returns its result. Any other end is raised: Failed, Discarded, Expired, Dead, and Ignored.

        After `timeout` seconds (None: never) TimedOut is raised, and the message stands.
        """
        return self._ask(requests.call_and_wait(worker, method, args, existing, expires, after), timeout)

    def kill(
        self, worker: Address, *, within: Optional[float] = None, drain: bool = False, now: bool = False
    ) -> Killed:
        """Discards what is pending and ends the worker after its current task (rule K1).

        `within`: the current task may still take so long (K4). `drain`: what is pending is executed first (K13). `now`:
        begin with SIGKILL.
        """
        return self._ask(requests.kill(requests.address(worker), within, drain, now), self.timeout)

    def kill_and_wait(
        self,
        worker: Address,
        *,
        timeout: Optional[float] = None,
        within: Optional[float] = None,
        drain: bool = False,
        now: bool = False,
    ) -> KillReport:
        """The same, and waits until the process is gone (rule K12). Ignored is raised if there is no such worker."""
        return self._ask(requests.kill_and_wait(worker, within, drain, now), timeout)

    def ps(self) -> List[Report]:
        """Who is there: the rows of `workhall ps --json`."""
        rows: List[Report] = []
        while True:
            page = self._ask(requests.ps_page(rows[-1]["at"] if rows else None), self.timeout)
            rows += page
            if len(page) < requests.PAGE:
                return rows

    def info(self, worker: Address) -> Report:
        """All about one worker. Ignored is raised if there is none."""
        return self._ask(requests.info(worker), self.timeout)

    def status(self) -> Report:
        """The supervisor: its ledger (rule L1), limits, health."""
        return self._ask(requests.status(), self.timeout)

    def wait(self, worker: Address, until: str = "idle", *, timeout: Optional[float] = None) -> None:
        """Waits until a worker is `idle`, `gone`, `empty`, or has `room` for more messages."""
        self._ask(requests.wait(worker, until), timeout)

    def pause(self, worker: Address) -> None:
        """Stops the process of a worker where it is; its mailbox goes on accepting (rule P4)."""
        self._ask(requests.pause(worker), self.timeout)

    def resume(self, worker: Address) -> None:
        """Continues a worker that was paused, or that backs off after crashes (rules P4, D4)."""
        self._ask(requests.resume(worker), self.timeout)

    def dead(self, worker: Optional[str] = None, *, limit: Optional[int] = None, before: Optional[int] = None) -> Report:
        """Which dead letters there are: `letters`, the last of them, in the order in which they died, and totals.

        `before`: those whose `at` is before this one, for the page before.
        """
        return self._ask(requests.dead_page(worker, limit, before), self.timeout)

    def dead_show(self, message: int) -> Report:
        """All about one dead letter, its arguments too."""
        return self._ask(requests.dead_show(message), self.timeout)

    def requeue(
        self, message: Optional[int] = None, *, worker: Optional[str] = None, everything: bool = False
    ) -> Report:
        """Posts dead letters again: `messages` is how many, `left` how many stay, `refused` why the first of those does."""
        return self._ask(requests.requeue(message, worker, everything), self.timeout)

    def dead_drop(self, message: Optional[int] = None, *, worker: Optional[str] = None, everything: bool = False) -> int:
        """Forgets dead letters, and returns how many."""
        return self._ask(requests.dead_drop(message, worker, everything), self.timeout)

    def reload(self, *, restart: bool = False, timeout: Optional[float] = None) -> Dict[str, Any]:
        """Reads the configuration again; what has changed. Failed is raised if it has an error, and then nothing has."""
        return self._ask(requests.reload(restart), timeout)

    def upgrade(self, binary: Optional[str] = None, *, timeout: Optional[float] = None) -> Dict[str, Any]:
        """The supervisor becomes another program, in place."""
        return self._ask(requests.upgrade(binary), timeout)
