"""What can go wrong, one type for each answer that a caller may want to treat in its own way."""

from __future__ import annotations

from typing import Dict, Optional, Sequence, Tuple


class WorkhallError(Exception):
    """The base of all errors of this package."""


class NotStartedBySupervisor(WorkhallError, SystemExit):
    """A worker's program was started by hand. Not caught, it ends the program with 1 and its sentence on stderr."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"this program is a Workhall worker: a supervisor starts it at the first message to its name ({why}). "
            "Try `workhall serve --workers DIR` with the directory of this program, then `workhall call NAME METHOD`"
        )
        self.code = str(self)


class MethodError(WorkhallError):
    """Raised by a method: the message is settled as *failed* with this text alone, without a traceback (rule D3)."""


class CannotSend(WorkhallError, ValueError):
    """Arguments that JSON and the protocol do not have, such as NaN or a set. Nothing was sent."""


class NotUnderstood(WorkhallError):
    """The supervisor could not read the request, and has done nothing; the text says what was wrong."""


class NoSupervisor(WorkhallError, ConnectionError):
    """Nobody answers at the socket. Nothing was sent."""

    def __init__(self, socket: str, why: str) -> None:
        super().__init__(f"no supervisor answers at {socket}: {why}")
        self.socket = socket


class SupervisorGone(WorkhallError, ConnectionError):
    """The connection ended.

    `sent` says whether the request that raises this was sent: if not, it was not executed. `unanswered` names all requests
    of the connection that had no answer by then; each may or may not have been executed.
    """

    def __init__(
        self, socket: str, request: str, sent: bool, unanswered: Sequence[str], said: Optional[str], closed: bool = False
    ) -> None:
        text = f"the supervisor at {socket} is gone"
        if closed:
            text = f"the connection to the supervisor at {socket} was closed"
        elif said is not None:
            text += f" (it said: {said})"
        if request:
            text += f": {request} "
            text += "was not answered, and may or may not have been executed" if sent else "was not sent, and not executed"
        others = [what for what in unanswered if what != request]
        if sent and others:
            shown = ", ".join(others[:5]) + (f" and {len(others) - 5} more" if len(others) > 5 else "")
            text += f"; the same holds for {shown}"
        super().__init__(text)
        self.socket = socket
        self.request = request
        self.sent = sent
        self.unanswered: Tuple[str, ...] = tuple(unanswered)


class TimedOut(WorkhallError, TimeoutError):
    """The time ran out before the answer came. What was sent stands: `message` is its id where it was accepted already."""

    def __init__(self, request: str, seconds: float, message: Optional[int], sent: bool = True) -> None:
        text = f"{request} had no answer within {seconds:g}s" if sent else f"{request} could not be sent within {seconds:g}s"
        super().__init__(text if message is None else f"{text}; `cancel({message})` takes it back")
        self.message = message
        self.sent = sent


class Refused(WorkhallError):
    """The supervisor has refused the request, and nothing has happened. `reason` is one of a closed set (rule C4)."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"refused: {reason}: {detail}")
        self.reason = reason
        self.detail = detail


_IGNORED = {
    "no_worker": "there is no such worker",
    "ending": "the worker was killed and is ending",
    "no_startup_method": "the method is empty, and the worker has no startup method",
    "own_killed_worker": "this worker was killed, and called itself",
    "no_letter": "there is no such dead letter",
    "no_signal": "there is no such signal, or it is nobody's any more",
    "no_message": "no such message is pending or executed",
    "running": "a process of this name runs already",
    "already_triggered": "the signal was triggered before, and its values stand",
}


class Ignored(WorkhallError):
    """By the rules nothing is to be done, so there is nothing to wait for or to return."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"ignored: {_IGNORED.get(reason, reason)}")
        self.reason = reason


class Outcome(WorkhallError):
    """The base of all ends of a message other than *done*."""


class Failed(Outcome):
    """The method reported an error, or the supervisor could not do what was asked; `error` is the text."""

    def __init__(self, error: str) -> None:
        super().__init__(error)
        self.error = error


class Discarded(Outcome):
    """The message was discarded by a kill or a cancel."""

    def __init__(self, may_have_run: bool = False) -> None:
        super().__init__("the message was discarded" + (", and may have been executed" if may_have_run else ""))
        self.may_have_run = may_have_run


class Expired(Outcome):
    """The message was not begun within its time to live (rule C13)."""

    def __init__(self, may_have_run: bool = False) -> None:
        super().__init__("the message has expired" + (", and may have been executed" if may_have_run else ""))
        self.may_have_run = may_have_run


class Dead(Outcome):
    """The message is a dead letter: no process will execute it any more (rules D2 to D6).

    `exit` is `{"code": 1}` or `{"signal": 9}`, how the process ended, or None.
    """

    def __init__(self, reason: str, exit: Optional[Dict[str, int]], may_have_run: bool) -> None:
        text = f"the message is a dead letter: {reason}"
        for kind, number in (exit or {}).items():
            text += f", exit status {number}" if kind == "code" else f", {kind} {number}"
        super().__init__(text + (", and may have been executed" if may_have_run else ""))
        self.reason = reason
        self.exit = exit
        self.may_have_run = may_have_run


class Lost(Outcome):
    """Nobody is left who was to trigger the signal (rule S5)."""

    def __init__(self) -> None:
        super().__init__("nobody is left who was to trigger the signal")
