"""Notes uses of members that several threads share, and which of them happen without the lock of the object."""

from __future__ import annotations

import operator
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest

_MAKING: Final = ("__init__", "__attrs_init__", "_forked")  # no other thread has the object yet


class Watch:
    """What was used.

    Attributes:
        used: Names of members.
        without: How often each was used without the lock, with the function that did.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.used: set[str] = set()
        self.without = Counter[str]()

    def of(self, cls: Any, lock: str | Callable[[], Any], used: str = "", written: str = "") -> None:
        """Note all uses of the members `used` of a class, and assignments of the members `written`.

        Args:
            cls: The class.
            lock: Where an object has its lock, or what returns the lock that is not in it.
            used: Names with spaces between, as `written`.
            written: See above.
        """
        get, put, every, assigned = cls.__getattribute__, cls.__setattr__, used.split(), (used + " " + written).split()

        def note(it: Any, name: str) -> None:
            code = sys._getframe(2).f_code
            if code.co_name in _MAKING or "/cycles/" not in code.co_filename:
                return
            self.used.add(name)
            its = operator.attrgetter(lock)(it) if isinstance(lock, str) else lock()
            if not (getattr(its, "_is_owned", None) or its.locked)():
                self.without[f"{name} in {code.co_name}"] += 1

        def read(it: Any, name: str) -> Any:
            if name in every:
                note(it, name)
            return get(it, name)

        def write(it: Any, name: str, value: Any) -> None:
            if name in assigned:
                note(it, name)
            put(it, name, value)

        self._monkeypatch.setattr(cls, "__getattribute__", read, raising=False)
        self._monkeypatch.setattr(cls, "__setattr__", write, raising=False)
