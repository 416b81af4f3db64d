"""Workhall for asyncio: the same requests as of the blocking Client, as coroutines, and attached workers.

    async with workhall.aio.Client() as client:
        results = await asyncio.gather(*(client.call_and_wait("counter", "add", n) for n in range(100)))

A coroutine that is cancelled waits no more; what it has sent stands.
"""

from ._aio import Client, Signal
from ._aio_attached import AttachedWorker, attach

__all__ = ["AttachedWorker", "Client", "Signal", "attach"]
