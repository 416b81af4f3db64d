#!/usr/bin/env python3
"""The agreed methods of the conformance suite (`conformance --help`) in Python: `conformance_worker.py [WINDOW]`. With
CONFORMANCE_ATTACH it takes that name by itself."""

import os
import sys
import time
from pathlib import Path
from typing import Any, Callable, Optional, Tuple, Union

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from workhall import AttachedWorker, Killed, MethodError, Receipt, Refused, Signal, Worker, attach  # noqa: E402
from workhall import worker as started  # noqa: E402
from workhall._worker import WINDOW_DEFAULT  # noqa: E402

worker: Worker = attach(os.environ["CONFORMANCE_ATTACH"]) if "CONFORMANCE_ATTACH" in os.environ else started

Asked = Union[Receipt, Killed]


def told(ask: Callable[[], Asked]) -> str:
    """A receipt as the suite wants it: its word, and the reason or the number."""
    try:
        receipt = ask()
    except Refused as error:
        return f"refused {error.reason}"
    if receipt.ignored is not None:
        return f"ignored {receipt.ignored}"
    return f"killed {receipt.discarded}" if isinstance(receipt, Killed) else "accepted"


def within(ms: int, is_so: Callable[[], bool]) -> bool:
    """Whether it becomes so within so many milliseconds."""
    end = time.monotonic() + ms / 1000
    while not is_so():
        if time.monotonic() >= end:
            return False
        time.sleep(0.001)
    return True


@worker.method
def echo(x: Any) -> Any:
    return x


@worker.method
def fail(text: str) -> None:
    raise MethodError(text)


@worker.method
def sleep(ms: int) -> None:
    if not isinstance(ms, int):
        raise MethodError("the arguments of `sleep` do not fit: the time is a whole number of milliseconds")
    time.sleep(ms / 1000)


@worker.method
def crash() -> None:
    os._exit(3)


@worker.method
def who() -> Tuple[str, int, int]:
    return worker.name, worker.number, worker.generation


@worker.method
def sender() -> Optional[Tuple[str, int]]:
    return None if worker.sender is None else (worker.sender.worker, worker.sender.number)


@worker.method
def call(to: Union[str, int], method: str, args: Any) -> str:
    return told(lambda: worker.call(to, method, *args))


@worker.method
def reply(method: str, args: Any) -> str:
    return told(lambda: worker.reply(method, *args))


@worker.method
def kill(who: Union[str, int, None]) -> str:
    return told(worker.kill_self if who is None else lambda: worker.kill(who))


@worker.method
def last_words(to: Union[str, int], method: str) -> str:
    worker.kill_self()
    return told(lambda: worker.call(to, method))


@worker.method
def ending(ms: int) -> bool:
    return within(ms, lambda: worker.end_requested)


@worker.method
def cancelled(ms: int) -> bool:
    return within(ms, lambda: worker.cancelled)


@worker.method
def new_signal(text: str) -> Signal:
    return worker.signal(text)


@worker.method
def trigger(signal: Signal, key: str, value: Any) -> bool:
    signal.set(key, value)
    return signal.trigger()


@worker.method
def wait_for(signal: Signal, ms: int) -> Any:
    return signal.values if signal.wait(ms / 1000) else None


@worker.method
def leave(drain: bool) -> None:
    assert isinstance(worker, AttachedWorker)
    worker.leave(drain=drain)


if __name__ == "__main__":
    worker.run(window=int(sys.argv[1]) if len(sys.argv) > 1 else WINDOW_DEFAULT)
