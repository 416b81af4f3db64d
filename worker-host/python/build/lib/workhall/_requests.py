"""The requests, without input and output: what is said, and what the answer means. Both clients and workers are made of them."""

from __future__ import annotations

import math
from typing import Any, Callable, Dict, Generic, List, Mapping, Optional, Sequence, TypeVar, Union

from ._answers import Answer, Killed, KillReport, Receipt
from ._errors import CannotSend

T = TypeVar("T")
Address = Union[str, int]
Report = Dict[str, Any]

# Rows of `ps` that are asked for at a time.
PAGE = 1000


class Request(Generic[T]):
    """One request. `what` names it for people."""

    def __init__(
        self, kind: str, fields: Mapping[str, Any], what: str, finish: Callable[[Answer], T], outcome: bool = False
    ) -> None:
        self.kind = kind
        # None is what may be left out.
        self.fields = {key: value for key, value in fields.items() if value is not None}
        self.what = what
        self.finish = finish
        #: After a receipt that does not end it, an outcome comes.
        self.outcome = outcome


def address(worker: Address) -> Address:
    if isinstance(worker, bool) or not isinstance(worker, (str, int)):
        raise TypeError(f"a worker is a name (str) or a number (int), not {worker!r:.100}")
    if isinstance(worker, int) and not 0 <= worker < 1 << 64:
        raise CannotSend(f"{worker} is no worker's number")
    return worker


def shown(worker: Address) -> str:
    return f"%{worker}" if isinstance(worker, int) else worker


def millis(seconds: Optional[float], name: str) -> Optional[int]:
    """For the wire, rounded up: what is not zero does not become zero."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"`{name}` is in seconds, a number, not {seconds!r:.100}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"`{name}` is in seconds from 0 up, and None for no limit, not {seconds!r}")
    return min(math.ceil(seconds * 1000), (1 << 64) - 1)


def _flag(value: bool) -> Optional[bool]:
    return True if value else None


def _receipt(answer: Answer) -> Receipt:
    if answer.receipt == "ignored":
        return Receipt(ignored=answer.body["reason"])
    body = answer.expect("accepted", "running")
    return Receipt(body["worker"], body["number"], body.get("message", 0))


def _result(answer: Answer) -> Any:
    answer.expect("accepted")
    if answer.outcome == "done":
        return answer.outcome_body.get("result")
    return answer.raise_outcome()


def _killed(answer: Answer) -> Killed:
    if answer.receipt == "ignored":
        return Killed(ignored=answer.body["reason"])
    return Killed(answer.expect("killed")["discarded"])


def _kill_report(answer: Answer) -> KillReport:
    answer.expect("killed")
    if answer.outcome != "killed":
        return answer.raise_outcome()  # type: ignore[no-any-return]
    return KillReport(**{key: answer.outcome_body.get(key) for key in KillReport.__dataclass_fields__})


def _reached(answer: Answer) -> None:
    answer.expect("waiting")
    if answer.outcome != "reached":
        answer.raise_outcome()


def _nothing(*kinds: str) -> Callable[[Answer], None]:
    def finish(answer: Answer) -> None:
        answer.expect(*kinds)

    return finish


def _body(kind: str) -> Callable[[Answer], Any]:
    return lambda answer: answer.expect(kind)


def _args(args: Sequence[Any]) -> List[Any]:
    return list(args)


def call(
    worker: Address, method: str, args: Sequence[Any], existing: bool, expires: Optional[float], after: Optional[float]
) -> Request[Receipt]:
    fields = _call(worker, method, args, existing, expires, after)
    return Request("call", fields, _call_name(worker, method), _receipt)


def call_and_wait(
    worker: Address, method: str, args: Sequence[Any], existing: bool, expires: Optional[float], after: Optional[float]
) -> Request[Any]:
    fields = _call(worker, method, args, existing, expires, after)
    fields["wait"] = True
    return Request("call", fields, _call_name(worker, method), _result, outcome=True)


def _call(
    worker: Address, method: str, args: Sequence[Any], existing: bool, expires: Optional[float], after: Optional[float]
) -> Dict[str, Any]:
    if not isinstance(method, str):
        raise TypeError(f"a method is a text, not {method!r:.100}")
    return {
        "worker": address(worker),
        "method": method,
        "args": _args(args),
        "existing": _flag(existing),
        "expires_ms": millis(expires, "expires"),
        "in_ms": millis(after, "after"),
    }


def _call_name(worker: Address, method: str) -> str:
    return f"call `{method}` of {shown(worker)}" if method else f"call of {shown(worker)}"


def kill(worker: Optional[Address], within: Optional[float], drain: bool, now: bool) -> Request[Killed]:
    return Request("kill", _kill(worker, within, drain, now), _kill_name(worker), _killed)


def kill_and_wait(worker: Address, within: Optional[float], drain: bool, now: bool) -> Request[KillReport]:
    fields = _kill(worker, within, drain, now)
    fields["wait"] = True
    return Request("kill", fields, _kill_name(worker), _kill_report, outcome=True)


def _kill(worker: Optional[Address], within: Optional[float], drain: bool, now: bool) -> Dict[str, Any]:
    return {
        "worker": None if worker is None else address(worker),
        "within_ms": millis(within, "within"),
        "drain": _flag(drain),
        "now": _flag(now),
    }


def _kill_name(worker: Optional[Address]) -> str:
    return "kill of itself" if worker is None else f"kill of {shown(worker)}"


def ps_page(after: Optional[int]) -> Request[List[Report]]:
    return Request("list", {"after": after, "limit": PAGE}, "ps", _body("report"))


def info(worker: Address) -> Request[Report]:
    return Request("info", {"worker": address(worker)}, f"info of {shown(worker)}", _body("report"))


def status() -> Request[Report]:
    return Request("status", {}, "status", _body("report"))


def wait(worker: Address, until: str) -> Request[None]:
    if until not in ("idle", "gone", "empty", "room"):
        raise ValueError(f"`until` is idle, gone, empty or room, not {until!r:.100}")
    fields = {"worker": address(worker), "until": until}
    return Request("wait", fields, f"wait until {shown(worker)} is {until}", _reached, outcome=True)


def pause(worker: Address) -> Request[None]:
    return Request("pause", {"worker": address(worker)}, f"pause of {shown(worker)}", _nothing("paused"))


def resume(worker: Address) -> Request[None]:
    return Request("resume", {"worker": address(worker)}, f"resume of {shown(worker)}", _nothing("resumed"))


def dead_page(worker: Optional[str], limit: Optional[int], before: Optional[int]) -> Request[Report]:
    return Request("dead", {"worker": worker, "limit": limit, "before": before}, "dead letters", _body("report"))


def dead_show(message: int) -> Request[Report]:
    return Request("dead_show", {"message": message}, f"dead letter {message}", _body("letter"))


def requeue(message: Optional[int], worker: Optional[str], everything: bool) -> Request[Report]:
    return Request("requeue", _letters(message, worker, everything), "requeue", _body("requeued"))


def dead_drop(message: Optional[int], worker: Optional[str], everything: bool) -> Request[int]:
    def finish(answer: Answer) -> int:
        return int(answer.expect("dropped")["messages"])

    return Request("dead_drop", _letters(message, worker, everything), "drop of dead letters", finish)


def _letters(message: Optional[int], worker: Optional[str], everything: bool) -> Dict[str, Any]:
    if [message is not None, worker is not None, everything].count(True) != 1:
        raise TypeError("say which dead letters: exactly one of message=ID, worker=NAME and everything=True")
    return {"message": message, "worker": worker, "all": _flag(everything)}


def reload(restart: bool) -> Request[Report]:
    return Request("reload", {"restart": _flag(restart)}, "reload", _body("report"))


def upgrade(binary: Optional[str]) -> Request[Report]:
    return Request("upgrade", {"binary": binary}, "upgrade", _body("report"))


def follow(
    kind: str, worker: Optional[Address], last: Optional[int], since: Optional[float], following: bool
) -> Request[None]:
    fields = {
        "worker": None if worker is None else address(worker),
        "last": last,
        "since_ms": millis(since, "since"),
        "follow": _flag(following),
    }
    return Request(kind, fields, kind, _reached, outcome=True)
