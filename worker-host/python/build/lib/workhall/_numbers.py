"""The numbers that 4D and Qodly give to processes (rule P3)."""

from enum import IntEnum


class ProcessType(IntEnum):
    """`type_number` of a row of `ps` and of `info`."""

    #: The main worker, number 1.
    MAIN = 1
    #: A process that executes one method and ends with it (`run_process`).
    RUN = 2
    #: A worker, whoever has started its process.
    WORKER = 5


class ProcessState(IntEnum):
    """`state_number` of a row of `ps` and of `info`. From 0 up the process is alive."""

    DOES_NOT_EXIST = -100
    #: The worker exists and has no process.
    NO_PROCESS = -1
    EXECUTING = 0
    #: Starting or ending.
    DELAYED = 1
    IDLE = 2
    WAITING_FOR_SIGNAL = 4
    PAUSED = 5

    @property
    def is_alive(self) -> bool:
        return self >= 0
