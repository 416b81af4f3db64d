"""One connection's conversation, without input and output: what came, and what it answers.

The session of a client knows answers alone. That of a worker is also handed tasks; *ending* begins with the supervisor's `kill`
or with its end, and from there on no task is given out, and what was sent ahead is forgotten.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional

from ._answers import Answer, Sender
from ._errors import NotUnderstood, SupervisorGone, WorkhallError
from ._json import LINE_BYTES_MAX, decoder, line
from ._requests import Request

# Receipts behind which an outcome comes, where one was asked for.
_GOES_ON = ("accepted", "killed", "waiting")
_KINDS = ("welcome", "task", "kill", "receipt", "outcome", "error", "news", "cancelled")
# All bodies of receipts and outcomes.
_BODIES = frozenset(
    "accepted ignored refused killed report waiting letter requeued dropped resumed accepted_all failed paused signal signalled "
    "cancelled running done discarded expired dead reached triggered timed_out lost".split()
)


class Task:
    """A task that came."""

    __slots__ = ("id", "method", "args", "sender", "wait", "cancelled")

    def __init__(self, fields: Dict[str, Any]) -> None:
        sender, number = fields.get("from"), fields.get("id")
        is_task = isinstance(number, int) and not isinstance(number, bool) and number >= 0
        is_task = is_task and isinstance(fields.get("method"), str) and isinstance(fields.get("args"), list)
        is_task = is_task and isinstance(fields.get("wait", False), bool)
        if sender is not None:
            is_task = is_task and isinstance(sender, dict) and isinstance(sender.get("worker"), str)
            is_task = is_task and isinstance(sender.get("number"), int)
        if not is_task:
            raise WorkhallError(f"the supervisor sent something that is no task: {fields!r:.200}")
        self.id: int = fields["id"]
        self.method: str = fields["method"]
        self.args: List[Any] = fields["args"]
        self.sender = None if sender is None else Sender(sender["worker"], sender["number"])
        self.wait: bool = fields.get("wait", False)
        self.cancelled = False


class Ask:
    """A request whose answer is due."""

    def __init__(self, request: Request[Any], ref: int) -> None:
        self.request = request
        self.ref = ref
        self.data = line(request.kind, {"ref": ref, **request.fields})
        self.receipt: Optional[Dict[str, Any]] = None
        self.outcome: Optional[Dict[str, Any]] = None
        self.error: Optional[str] = None
        self.news: Deque[Dict[str, Any]] = deque()
        self.is_answered = False
        #: Called when something has come.
        self.wake: Callable[[], None] = _nobody
        #: Some of it may have reached the supervisor.
        self.sent = True

    @property
    def message(self) -> Optional[int]:
        """The id of the message, once it was accepted."""
        accepted = (self.receipt or {}).get("accepted")
        return None if accepted is None else accepted.get("message")

    @property
    def what(self) -> str:
        """The request, for people."""
        message = self.message
        return self.request.what if message is None else f"{self.request.what} (message {message})"

    def take_in(self, kind: str, fields: Dict[str, Any]) -> None:
        if kind == "error":
            self.error = fields["detail"]
            self.is_answered = True
        elif kind == "receipt":
            self.receipt = fields
            self.is_answered = not (self.request.outcome and any(kind in fields for kind in _GOES_ON))
        elif kind == "outcome":
            self.outcome = fields
            self.is_answered = True
        elif kind == "news":
            self.news.append(fields)
        self.wake()

    def answer(self) -> Answer:
        if self.error is not None:
            raise NotUnderstood(f"{self.request.what}: {self.error}")
        (receipt, body), (outcome, outcome_body) = _body(self.receipt), _body(self.outcome)
        return Answer(receipt, body, outcome, outcome_body)


def _nobody() -> None:
    """Who waits with a condition is told by that."""


def _body(fields: Optional[Dict[str, Any]]) -> "tuple[str, Any]":
    # Beside what is known stands, one day, what a later version adds.
    for key, value in (fields or {}).items():
        if key in _BODIES:
            return key, value
    return "", None


class Session:
    """All that is known of one connection."""

    def __init__(self, socket: str, signal: Callable[[str], Any]) -> None:
        self.socket = socket
        self.welcome: Optional[Dict[str, Any]] = None
        self.tasks: Deque[Task] = deque()
        #: The task that is executed.
        self.current: Optional[Task] = None
        #: That, or the one that is about to be.
        self.next: Optional[Task] = None
        self.is_ending = False
        #: The supervisor's end is closed.
        self.has_ended = False
        #: By ourselves.
        self.was_closed = False
        #: The supervisor has asked for the end.
        self.was_killed = False
        # How often the supervisor has said that a task is not wanted any more.
        self.cancels = 0
        #: What it said before, where that was about no request.
        self.complaint: Optional[str] = None
        self.pending: Dict[int, Ask] = {}
        self.unanswered: List[str] = []
        self._decode = decoder(signal)
        self._begun: List[bytes] = []
        self._begun_bytes = 0
        self._last_ref = 0

    def begin(self, request: Request[Any]) -> Ask:
        """A request that is about to be sent."""
        if self.has_ended:
            raise self.gone(request.what, sent=False)
        self._last_ref += 1
        ask = Ask(request, self._last_ref)
        self.pending[ask.ref] = ask
        return ask

    def end(self) -> None:
        """The supervisor's end is closed."""
        if not self.has_ended:
            self.unanswered = [ask.what for ask in self.pending.values() if ask.sent and not ask.is_answered]
        self.has_ended = True
        self.stop()

    def stop(self) -> None:
        """No more tasks."""
        self.is_ending = True
        self.tasks.clear()

    def gone(self, what: str, sent: bool) -> SupervisorGone:
        unanswered = [other for other in self.unanswered if sent or other != what]
        return SupervisorGone(self.socket, what, sent, unanswered, self.complaint, self.was_closed)

    def feed(self, data: bytes) -> None:
        """Takes in what was read: any piece of the stream."""
        if b"\n" not in data:
            self._begun.append(data)
            self._begun_bytes += len(data)
            if self._begun_bytes > LINE_BYTES_MAX:
                raise WorkhallError(f"the supervisor sent a line of more than {LINE_BYTES_MAX} bytes")
            return
        lines = b"".join([*self._begun, data]).split(b"\n")
        rest = lines.pop()
        self._begun = [rest] if rest else []
        self._begun_bytes = len(rest)
        for text in lines:
            if text:
                self._take_in(self._decode(text))

    def _take_in(self, message: Dict[str, Dict[str, Any]]) -> None:
        is_message = isinstance(message, dict) and len(message) == 1
        # What a later version says may be anything.
        if not is_message or any(kind in _KINDS and not isinstance(fields, dict) for kind, fields in message.items()):
            raise WorkhallError(f"the supervisor sent something that is no message: {message!r:.200}")
        for kind, fields in message.items():
            if kind == "task":
                if not self.is_ending:
                    self.tasks.append(Task(fields))
            elif kind in ("receipt", "outcome", "news", "error"):
                ask = self.pending.get(fields.get("ref") or 0)
                if ask is not None:
                    ask.take_in(kind, fields)
                elif kind == "error" and fields.get("ref") is None:
                    self.complaint = fields["detail"]
            elif kind == "kill":
                self.was_killed = True
                self.stop()
            elif kind == "welcome":
                self.welcome = fields
            elif kind == "cancelled":
                self.cancels += 1
                for task in (self.next, *self.tasks):
                    if task is not None and task.id == fields["id"]:
                        task.cancelled = True
            # What a later version says is nothing to this one.
