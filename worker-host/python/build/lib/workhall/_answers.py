"""What comes back from the supervisor, in types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Optional

from ._errors import Dead, Discarded, Expired, Failed, Ignored, Lost, NotUnderstood, Outcome, Refused


class Sender(NamedTuple):
    """The worker that sent a task (rule C11); its number names that worker and no later one of the same name."""

    worker: str
    number: int


@dataclass(frozen=True)
class Receipt:
    """What a call returns (rule C4): the message is in a mailbox, or was *ignored* by the rules. It is true if accepted."""

    #: The worker's name; empty if ignored.
    worker: str = ""
    #: Its number; 0 if ignored.
    number: int = 0
    #: The message's id; 0 if ignored.
    message: int = 0
    #: Why it was ignored, like `no_worker`; None if accepted.
    ignored: Optional[str] = None

    def __bool__(self) -> bool:
        return self.ignored is None


@dataclass(frozen=True)
class Killed:
    """What a kill returns: how many pending messages it has discarded. It is true unless it was ignored."""

    discarded: int = 0
    ignored: Optional[str] = None

    def __bool__(self) -> bool:
        return self.ignored is None


@dataclass(frozen=True)
class KillReport:
    """How a kill ended (rule K12). Times are in milliseconds."""

    worker: str
    number: int
    generation: int
    discarded: int
    #: The task that was running: `none`, `finished` or `interrupted`.
    current: str
    #: `ask`, `term`, `kill`, `already_gone` or `only_emptied`.
    ended_by: str
    #: `{"code": 0}` or `{"signal": 9}`, or None.
    exit: Optional[Dict[str, int]]
    took_ms: int
    #: `ask_ms`, `term_ms`, `kill_ms`; None for a step not taken.
    steps: Dict[str, Optional[int]]


class Answer:
    """A receipt, and where one was waited for the outcome. Each is its kind and its body."""

    def __init__(self, receipt: str, body: Any, outcome: str = "", outcome_body: Any = None) -> None:
        self.receipt = receipt
        self.body = body
        self.outcome = outcome
        self.outcome_body = outcome_body

    def expect(self, *kinds: str) -> Any:
        """The body of the receipt, of one of these kinds; else what it says is raised."""
        if self.receipt in kinds:
            return self.body
        if self.receipt == "refused":
            raise Refused(self.body["reason"], self.body["detail"])
        if self.receipt == "ignored":
            raise Ignored(self.body["reason"])
        if self.receipt == "failed":
            raise Failed(self.body["error"])
        raise NotUnderstood(f"the supervisor's answer is `{self.receipt}`, which this version of the library does not know here")

    def raise_outcome(self) -> Any:
        """The outcome is none of the good ones: raises what it is."""
        raise outcome_error(self.outcome, self.outcome_body or {})


def outcome_error(kind: str, body: Dict[str, Any]) -> Outcome:
    may_have_run = bool(body.get("may_have_run", False))
    if kind == "failed":
        return Failed(body["error"])
    if kind == "discarded":
        return Discarded(may_have_run)
    if kind == "expired":
        return Expired(may_have_run)
    if kind == "dead":
        return Dead(body["reason"], body.get("exit"), may_have_run)
    if kind == "lost":
        return Lost()
    return Outcome(f"the outcome is `{kind}`, which this version of the library does not know: {body!r:.200}")
