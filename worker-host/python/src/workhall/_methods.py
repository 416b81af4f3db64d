"""The methods of a worker: how a function becomes one, and how a message's arguments become a function's."""

from __future__ import annotations

import inspect
import os
import traceback
from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar, overload

from ._errors import MethodError

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__workhall_method__"
# What is told of an error is bounded: the last so many frames, and so many characters of each part.
_FRAMES_MAX = 20
_MESSAGE_CHARS_MAX = 4096
_TRACE_CHARS_MAX = 8192

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Method:
    """A function that may be called by message."""

    def __init__(self, name: str, function: Callable[..., Any], may_be_async: bool = False) -> None:
        if not callable(function):
            raise TypeError(f"a method is a function, not {function!r:.100}")
        if inspect.iscoroutinefunction(function) and not may_be_async:
            raise TypeError(
                f"`{name}` is an async function; a worker executes one task at a time, so a method is an ordinary one "
                "(it may call asyncio.run; an attached worker of workhall.aio has async ones)"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"`{name}` is a generator; a method returns its result, like a list")
        if not name or len(name.encode(errors="replace")) > 255:
            raise ValueError(f"a method's name has 1 to 255 bytes, not {name!r:.300}")
        self.name = name
        self.function = function
        try:
            self._signature = inspect.signature(function)
        except ValueError:
            # Some functions that are written in C do not say what they take, and check it themselves.
            self._signature = inspect.signature(lambda *args: args)
        parameters = list(self._signature.parameters.values())
        kinds = [parameter.kind for parameter in parameters]
        #: A last argument that is an object are its keyword arguments.
        self.takes_keywords = inspect.Parameter.KEYWORD_ONLY in kinds or inspect.Parameter.VAR_KEYWORD in kinds
        positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
        self._fewest = sum(1 for parameter in positional if parameter.default is inspect.Parameter.empty)
        self._most = 1 << 62 if inspect.Parameter.VAR_POSITIONAL in kinds else len(positional)

    def execute(self, args: List[Any]) -> Any:
        """Executes it. MethodError if the arguments do not fit."""
        if self.takes_keywords:
            positional, keywords = self._spread(args)
            self._bind(positional, keywords)
            return self.function(*positional, **keywords)
        if not self._fewest <= len(args) <= self._most:
            self._bind(args, {})
        return self.function(*args)

    def _spread(self, args: List[Any]) -> Tuple[List[Any], Dict[str, Any]]:
        if args and isinstance(args[-1], dict):
            return args[:-1], args[-1]
        return args, {}

    def _bind(self, args: List[Any], keywords: Dict[str, Any]) -> None:
        try:
            self._signature.bind(*args, **keywords)
        except TypeError as error:
            text = f"the arguments of `{self.name}` do not fit: {error}"
            # Python names the first thing that is wrong, which where a name is misspelt is that the right one is missing.
            unknown_names = "" if "unexpected keyword" in text else self._unknown(keywords)
            text += f"{unknown_names}; it is {self.name}{self._signature}"
            if self.takes_keywords and keywords:
                text += " (the last argument is an object, and is taken as keyword arguments)"
            raise MethodError(text) from None

    def _unknown(self, keywords: Dict[str, Any]) -> str:
        parameters = self._signature.parameters
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return ""
        names = [repr(name) for name in keywords if name not in parameters]
        return f", and it has no argument {', '.join(names)}" if names else ""


def is_of_a_class(function: Callable[..., Any]) -> bool:
    """Whether it is defined in the body of a class, and has no object yet."""
    if hasattr(function, "__self__"):
        return False
    outer = getattr(function, "__qualname__", "").rpartition(".")[0]
    return bool(outer) and not outer.endswith("<locals>")


def mark(function: Callable[..., Any], name: str) -> None:
    """Notes that a function in the body of a class is a method."""
    setattr(function, _MARK, name)


class Methods:
    """The methods of a worker, and its error hook: what is declared before it runs."""

    _may_be_async = False

    def __init__(self) -> None:
        self._methods: Dict[str, Method] = {}
        self._hook: Optional[Callable[[Exception], object]] = None

    @overload
    def method(self, function: F, *, name: Optional[str] = None) -> F: ...

    @overload
    def method(self, function: Optional[str] = None) -> Callable[[F], F]: ...

    def method(self, function: Any = None, *, name: Optional[str] = None) -> Any:
        """Makes a function a method of this name, else of its own; in the body of a class, of the object given to `run`.

        What it returns is the result. What it raises settles the message as *failed*, and the process lives on (rule D3).
        The arguments are those of the call, by position. A function that has keyword-only parameters (or `**`) takes its keyword
        arguments from the last argument, if that is an object: `make(path, *, size)` from `["a.png", {"size": 48}]`.
        Who wants to give such a function an object by position puts an empty object behind it.
        """
        if callable(function):
            self._add(function, name or str(getattr(function, "__name__", "")))
            return function
        if function is not None and not isinstance(function, str):
            raise TypeError(f"a method is a function, not {function!r:.100}")

        def decorate(decorated: F) -> F:
            self._add(decorated, function or str(getattr(decorated, "__name__", "")))
            return decorated

        return decorate

    def _add(self, function: Callable[..., Any], name: str) -> None:
        # Whether an object may have async ones is known when it is given to a `run`.
        is_in_class = is_of_a_class(function)
        method = Method(name, function, self._may_be_async or is_in_class)
        if is_in_class:
            mark(function, name)
        else:
            self._add_method(self._methods, method)

    @staticmethod
    def _add_method(methods: Dict[str, Method], method: Method) -> None:
        if method.name in methods:
            raise ValueError(f"there are two methods `{method.name}`: give one another name, @worker.method(\"…\")")
        methods[method.name] = method

    def _with(self, state: object) -> Dict[str, Method]:
        """All methods, with those of the object given to `run`."""
        methods = dict(self._methods)
        for method in [] if state is None else methods_of(state, self._may_be_async):
            self._add_method(methods, method)
        return methods

    def on_error(self, hook: Callable[[Exception], object]) -> Callable[[Exception], object]:
        """Sets the one error hook of the process (rule D3).

        It is called with each error that a method raises, and with calls of unknown methods and wrong arguments (MethodError),
        before the message is settled as failed. `task` says where it happened. It is an ordinary function, also for asyncio.
        """
        if not callable(hook):
            raise TypeError(f"the error hook is a function, not {hook!r:.100}")
        if inspect.iscoroutinefunction(hook):
            raise TypeError(
                "the error hook is an async function, which nobody would await; an ordinary one may begin a task of asyncio's"
            )
        if self._hook is not None:
            raise ValueError("there is an error hook already: a process has one")
        self._hook = hook
        return hook

    def _failure(self, error: BaseException) -> str:
        """What is told of an error, which the hook has heard of. SystemExit and KeyboardInterrupt are raised: they end the process."""
        if isinstance(error, (SystemExit, KeyboardInterrupt)):
            raise error
        text = told(error)
        if self._hook is not None and isinstance(error, Exception):
            try:
                self._hook(error)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as second:
                text += f"\nthe error hook failed itself: {told(second)}"
        # Half of a surrogate pair is no text.
        return text.encode(errors="backslashreplace").decode()


def methods_of(state: object, may_be_async: bool = False) -> List[Method]:
    """The marked methods of an object."""
    if isinstance(state, type):
        raise TypeError(f"`run` takes an object, not a class: write run({state.__name__}())")
    found: List[Method] = []
    for attribute in dir(type(state)):
        marked = inspect.getattr_static(type(state), attribute)
        if isinstance(marked, (staticmethod, classmethod)):
            marked = marked.__func__
        name = getattr(marked, _MARK, None)
        if isinstance(name, str):
            found.append(Method(name, getattr(state, attribute), may_be_async))
    if not found:
        raise TypeError(f"{type(state).__name__} has no method: mark those that may be called with @worker.method")
    return found


def unknown(name: str, known: List[str]) -> MethodError:
    there = ", ".join(f"`{other}`" for other in known) if known else "none"
    return MethodError(f"there is no method `{name}`: this worker has {there}")


def told(error: BaseException) -> str:
    """An error for who waits: what it is in the first line, and where it was raised below."""
    if isinstance(error, MethodError):
        return _cut(_shown(str, error), _MESSAGE_CHARS_MAX)
    try:
        what = "".join(traceback.format_exception_only(type(error), error)).strip()
    except Exception:
        what = type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    # The first ones are the library's.
    while frames and os.path.dirname(frames[0].filename) == os.path.dirname(__file__):
        del frames[0]
    lines = traceback.format_list(frames[-_FRAMES_MAX:])
    text = _cut(what, _MESSAGE_CHARS_MAX)
    if lines:
        left_out = len(frames) - _FRAMES_MAX
        if left_out > 0:
            lines.insert(0, f"  ({left_out} frames more)\n")
        text += "\nTraceback (most recent call last):\n" + _cut_front("".join(lines).rstrip("\n"), _TRACE_CHARS_MAX)
    cause: Optional[BaseException] = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        text += f"\nraised while this was handled: {_cut(_shown(repr, cause), 500)}"
    return text


def _shown(how: Callable[[BaseException], str], error: BaseException) -> str:
    """An error that may raise one itself when it is looked at."""
    try:
        return how(error)
    except Exception:
        return type(error).__name__


def _cut(text: str, chars: int) -> str:
    return text if len(text) <= chars else text[:chars] + f"… ({len(text) - chars} characters more)"


def _cut_front(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"({len(text) - chars} characters more) …" + text[-chars:]
