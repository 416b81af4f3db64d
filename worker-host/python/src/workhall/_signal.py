"""Signals (rules S1 to S5)."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Deque, Dict, Mapping, Optional, Type

from . import _requests as requests
from ._errors import Ignored, WorkhallError

if TYPE_CHECKING:
    from ._caller import Caller


class Signal:
    """A signal: triggered once, by anyone who has it, for any number that wait for it.

    It goes anywhere into the arguments of a call, and comes out on the other side as one of these. Ignored is raised where there is
    no such signal any more. Times are in seconds, with decimals.
    """

    def __init__(self, caller: "Caller", identifier: str, unheld: Optional[Deque[str]]) -> None:
        #: 32 hexadecimal digits that nobody can guess.
        self.id = identifier
        self._caller = caller
        # Where to say that it is held no more, if this is the object that was made with the signal.
        self._unheld = unheld

    @property
    def __workhall_signal__(self) -> str:
        return self.id

    def trigger(self, values: Optional[Mapping[str, Any]] = None) -> bool:
        """Triggers it, and wakes all who wait, with these values and those set before. False: it was triggered already, nothing
        is done (rule S2)."""
        for key, value in (values or {}).items():
            if not self._set(key, value):
                return False
        return self._caller._ask(requests.signal_trigger(self.id), self._caller.timeout)

    def _set(self, key: str, value: Any) -> bool:
        try:
            self.set(key, value)
        except Ignored as error:
            if error.reason == "already_triggered":
                return False
            raise
        return True

    def set(self, key: str, value: Any) -> None:
        """Writes one of its values, which are read after the trigger. Ignored is raised after it."""
        self._caller._ask(requests.signal_set(self.id, key, value), self._caller.timeout)

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Waits until it is triggered: at once if it was; for ever if `timeout` is None; 0 only looks (rule S3). False: the time ran out.

        If the message that was to trigger it has ended without doing so, that is raised: Failed, Discarded, Expired, Dead;
        or Lost if nobody is left who could (rule S5).
        """
        request = requests.signal_wait(self.id, timeout)
        # The supervisor measures the time; more is only waited for its answer.
        longest = None if timeout is None or self._caller.timeout is None else timeout + self._caller.timeout
        return self._caller._ask(request, longest)

    @property
    def signaled(self) -> bool:
        """Whether it was triggered."""
        return bool(self._look()["triggered"])

    @property
    def description(self) -> Optional[str]:
        """What its maker has said of it."""
        description = self._look()["description"]
        return None if description is None else str(description)

    @property
    def values(self) -> Dict[str, Any]:
        """Its values, once it was triggered (rule S4)."""
        values = self._look()["values"]
        if values is None:
            raise WorkhallError("the signal was not triggered yet: its values are read after that, so wait for it first")
        return dict(values)

    def get(self, key: str, default: Any = None) -> Any:
        """One of its values, once it was triggered."""
        return self.values.get(key, default)

    def _look(self) -> Dict[str, Any]:
        return self._caller._ask(requests.signal_get(self.id), self._caller.timeout)

    def free(self) -> None:
        """This process, which has made it, holds it no more (rule S4)."""
        self._unheld = None
        self._caller._ask(requests.signal_free(self.id), self._caller.timeout)

    def __enter__(self) -> "Signal":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if self._unheld is not None:
            self.free()

    def __del__(self) -> None:
        # Nothing can be sent from here. It is said with what is sent next.
        unheld = getattr(self, "_unheld", None)
        if unheld is not None:
            unheld.append(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signal) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"Signal({self.id!r})"
