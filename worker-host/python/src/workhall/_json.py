"""Lines of JSON, and what they carry beside JSON's own types: bytes as `{"$bytes": base64}`, signals as `{"$signal": id}`."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any, Callable, Dict, Mapping, Optional

from ._errors import CannotSend

# A line without its newline, of JSON, both ways (PROTOCOL.md, Limits).
LINE_BYTES_MAX = 16 << 20
# Arguments and results, the list of arguments being the first level.
LEVELS_MAX = 64
# What is to be looked at more closely: fewer digits are below 2^63, and what stands for bytes may be none.
_SUSPICIOUS = re.compile(rb'\d{19}|\{"\$bytes"')
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1


def _special(value: Any) -> Optional[Dict[str, str]]:
    """What stands for a value that JSON lacks, if it is one."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(value).decode()}
    signal = getattr(value, "__workhall_signal__", None)
    return {"$signal": signal} if isinstance(signal, str) else None


def _default(value: Any) -> Any:
    special = _special(value)
    if special is None:
        raise TypeError(f"a value of type {type(value).__name__} cannot be sent")
    return special


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default).encode


def encode(value: Any, place: str = "value") -> bytes:
    """The value as JSON in UTF-8, or CannotSend with the reason. `place` names it there."""
    try:
        data = _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        _check(value, place, LEVELS_MAX)
        raise CannotSend(f"{place} cannot be sent: {error}") from None
    # To look at each value would cost more than to write them.
    if _SUSPICIOUS.search(data) or data.count(b"[") + data.count(b"{") > LEVELS_MAX:
        _check(value, place, LEVELS_MAX)
    return data


def _check(value: Any, place: str, left: int) -> None:
    """Finds what cannot be sent, and raises CannotSend with its place."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise CannotSend(f"{place} is a text that is no Unicode, which cannot be sent: {error}") from None
    elif value is None or isinstance(value, bool):
        pass
    elif isinstance(value, int):
        # Others would arrive as doubles, and thus be others.
        if not _INT_MIN <= value <= _INT_MAX:
            raise CannotSend(f"{place} is {value:#x}, which cannot be sent: whole numbers go from -2^63 to 2^64-1")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise CannotSend(f"{place} is {value!r}, which cannot be sent: there is no such number in JSON")
    elif isinstance(value, (dict, list, tuple)):
        if left == 0:
            raise CannotSend(f"{place} nests more than {LEVELS_MAX} levels deep, or holds itself, and cannot be sent")
        if isinstance(value, dict):
            _check_bytes(value, place)
            for key, item in value.items():
                if key is not None and not isinstance(key, (str, int, float)):
                    raise CannotSend(f"a key of {place} is of type {type(key).__name__}, and cannot be sent: it becomes a text")
                _check(key, f"a key of {place}", left)
                _check(item, f"{place}.{key}", left - 1)
        else:
            for at, item in enumerate(value):
                _check(item, f"{place}[{at}]", left - 1)
    elif _special(value) is None:
        raise CannotSend(f"{place} is a value of type {type(value).__name__}, which cannot be sent: {value!r:.100}")


def _bytes_of(text: str) -> Optional[bytes]:
    """The bytes of a base64 text; None if it is none, has a bit too much, or is padded too little or too much."""
    # Python takes more padding than there may be.
    if len(text) % 4:
        return None
    try:
        data = base64.b64decode(text, validate=True)
        # Only the last four characters can say the same in two ways.
        return data if base64.b64encode(base64.b64decode(text[-4:])).decode() == text[-4:] else None
    except ValueError:
        return None


def _check_bytes(value: Dict[Any, Any], place: str) -> None:
    """What stands for bytes must be bytes: as the supervisor reads them, with their padding and without a bit too much."""
    text = value.get("$bytes")
    if len(value) != 1 or not isinstance(text, str):
        return
    if _bytes_of(text) is None:
        raise CannotSend(f'{place} is {{"$bytes": …}}, which stands for bytes, and holds no base64: send bytes')


def line(kind: str, fields: Mapping[str, Any]) -> bytes:
    """A message, ready to be written. It is never a line that would break the connection."""
    data = b'{"%s":{%s}}' % (kind.encode(), b",".join(b'"%s":%s' % (name.encode(), encode(value, name)) for name, value in fields.items()))
    if len(data) > LINE_BYTES_MAX:
        raise CannotSend(f"a message of {len(data)} bytes cannot be sent: {LINE_BYTES_MAX} is the most")
    return data + b"\n"


_plain = json.JSONDecoder().decode


def decoder(signal: Callable[[str], Any]) -> Callable[[bytes], Any]:
    """A function that reads a line; `signal` makes an object of a signal's id."""

    def special(value: Dict[str, Any]) -> Any:
        if len(value) == 1:
            ((key, inner),) = value.items()
            # What only looks like one is what it is: whoever sends it must not end who reads it.
            try:
                if key == "$bytes" and isinstance(inner, str):
                    data = _bytes_of(inner)
                    return value if data is None else data
                if key == "$signal" and isinstance(inner, str):
                    return signal(inner)
            except ValueError:
                pass
        return value

    full = json.JSONDecoder(object_hook=special).decode

    def decode(data: bytes) -> Any:
        # Most lines have none of these, and a function per object would cost more than all the rest.
        return (full if b'"$' in data else _plain)(data.decode())

    return decode
