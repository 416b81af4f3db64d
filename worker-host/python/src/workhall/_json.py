"""Lines of JSON, and what they carry beside JSON's own types: bytes as `{"$bytes": base64}`, signals as `{"$signal": id}`."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Callable, Dict, Mapping

from ._errors import CannotSend

# A line without its newline, of JSON, both ways (PROTOCOL.md, Limits).
LINE_BYTES_MAX = 16 << 20
# Arguments and results, the list of arguments being the first level.
LEVELS_MAX = 64
# Fewer digits are below 2^63.
_MANY_DIGITS = re.compile(rb"\d{19}")
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1


def _default(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(value).decode()}
    signal = getattr(value, "__workhall_signal__", None)
    if isinstance(signal, str):
        return {"$signal": signal}
    raise TypeError(f"a value of type {type(value).__name__} cannot be sent: {value!r:.100}")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_default).encode


def encode(value: Any) -> bytes:
    """The value as JSON in UTF-8, or CannotSend with the reason."""
    try:
        data = _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, UnicodeEncodeError):
            raise CannotSend(f"a text that is no Unicode cannot be sent: {error}") from None
        raise CannotSend(str(error)) from None
    # To look at each value would cost more than to write them.
    if _MANY_DIGITS.search(data):
        _check_integers(value)
    if data.count(b"[") + data.count(b"{") > LEVELS_MAX:
        _check_levels(value, LEVELS_MAX)
    return data


def _check_integers(value: Any) -> None:
    """Other whole numbers would arrive as doubles, and thus be others."""
    if isinstance(value, int):
        if not _INT_MIN <= value <= _INT_MAX:
            raise CannotSend(f"{value} cannot be sent: whole numbers go from -2^63 to 2^64-1")
    elif isinstance(value, dict):
        for item in value.values():
            _check_integers(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _check_integers(item)


def _check_levels(value: Any, left: int) -> None:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    if left == 0:
        raise CannotSend(f"a value that nests more than {LEVELS_MAX} levels deep cannot be sent")
    for item in value:
        if isinstance(item, (list, dict, tuple)):
            _check_levels(item, left - 1)


def line(kind: str, fields: Mapping[str, Any]) -> bytes:
    """A message, ready to be written. It is never a line that would break the connection."""
    data = b'{"%s":{%s}}' % (kind.encode(), b",".join(b'"%s":%s' % (name.encode(), encode(value)) for name, value in fields.items()))
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
                    return base64.b64decode(inner, validate=True)
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
