"""The mark page (PROTOCOL.md): what keeps the promises while tasks are sent ahead.

Two things are needed of Python. *Single stores*: an item of a `memoryview` of format `Q` is copied by a `memcpy` of 8 bytes, which on
machines of 64 bits is one store of an aligned word; nobody sees half of one. *A full fence* between the store into `begun` and the load of
`stop`: no store may still wait in the processor's buffer while the load behind it is done. Python has no fence. A `threading.Lock`
that is held, released and taken again is one where this is used:

- Its release is an atomic read-modify-write with release semantics, its acquisition one with acquire semantics: `sem_post` and `sem_trywait`, in
  the newest Pythons a compare-and-swap that is sequentially consistent.
- On x86_64 each is a locked instruction, which is a full fence.
- On aarch64 none of them alone is one. But a write with Release semantics (STLXR, LDADDL, CASAL) is ordered before a later read with
  Acquire semantics (LDAXR, CASA, CASAL), whatever the addresses; what stands before the release is ordered before that, what stands behind the
  acquisition behind it. So *release, then acquire* is one; *acquire, then release* is none. That is the architecture's text. It could not be
  tried: the machine of this project is an x86_64.
- Elsewhere (POWER: lwsync and isync let a load pass a store; others were not examined), and on interpreters other than CPython, whose
  locks and memoryviews are made of other things, the page is not used, and the worker takes one task at a time.
"""

from __future__ import annotations

import mmap
import platform
import sys
import threading

_BYTES = 4096
# Indexes of words of 8 bytes.
_BEGUN, _FINISHED, _ATTACHED, _STOP, _CANCELS = 0, 1, 2, 8, 9


def is_sound() -> bool:
    """Whether this interpreter on this machine keeps the order of the marks."""
    return (
        sys.implementation.name == "cpython"
        and sys.byteorder == "little"
        and sys.maxsize > 1 << 32
        and platform.machine() in ("x86_64", "aarch64")
    )


class MarkPage:
    """The page of this process. To make it says to the supervisor that it is kept."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._words = memoryview(self._map).cast("Q")
        self._lock = threading.Lock()
        self._lock.acquire()
        self._words[_ATTACHED] = 1

    def cancels(self) -> int:
        """How often the supervisor has said, or is saying, that a task is not wanted any more."""
        return self._words[_CANCELS]

    def begin(self, task: int) -> bool:
        """Marks that a task is begun; false: it must not be, and nothing after it."""
        words, lock = self._words, self._lock
        before = words[_BEGUN]
        words[_BEGUN] = task
        lock.release()
        lock.acquire()
        if words[_STOP]:
            words[_BEGUN] = before
            return False
        return True

    def finish(self, task: int) -> None:
        """Marks that all tasks up to this one are finished."""
        self._words[_FINISHED] = task

    @property
    def is_stopped(self) -> bool:
        return bool(self._words[_STOP])
