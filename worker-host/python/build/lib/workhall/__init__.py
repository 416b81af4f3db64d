"""Workers and callers of Workhall, the supervisor of named workers. README.md says how; `worker` is this process's worker."""

from ._answers import Killed, KillReport, Receipt, Sender
from ._client import Client
from ._errors import (
    CannotSend,
    Dead,
    Discarded,
    Expired,
    Failed,
    Ignored,
    Lost,
    MethodError,
    NoSupervisor,
    NotStartedBySupervisor,
    NotUnderstood,
    Outcome,
    Refused,
    SupervisorGone,
    TimedOut,
    WorkhallError,
)
from ._numbers import ProcessState, ProcessType
from ._worker import Worker, worker

__version__ = "0.1.0"

__all__ = [
    "CannotSend",
    "Client",
    "Dead",
    "Discarded",
    "Expired",
    "Failed",
    "Ignored",
    "KillReport",
    "Killed",
    "Lost",
    "MethodError",
    "NoSupervisor",
    "NotStartedBySupervisor",
    "NotUnderstood",
    "Outcome",
    "ProcessState",
    "ProcessType",
    "Receipt",
    "Refused",
    "Sender",
    "SupervisorGone",
    "TimedOut",
    "Worker",
    "WorkhallError",
    "worker",
]
