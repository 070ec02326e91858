"""The agents of a run, by the path that a program sends with its calls: what each and its children have used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from attrs import Factory, define

from cycles.proxy._shown import shown

AGENT_HEADER: Final = "x-cycles-agent"
MOST_PATHS: Final = 1_000
"""How many paths are counted separately; a program chooses them."""
OTHERS: Final = "others"
_MOST_NAMES: Final = 8
_MOST_CHARACTERS: Final = 128
_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def checked_path(path: str) -> str:
    """Return the path of an agent, like ``planner/searcher``.

    Raises:
        ValueError: it is no path; the message says what one is.
    """
    names = path.split("/")
    is_path = len(names) <= _MOST_NAMES and all(_NAME.fullmatch(name) for name in names)
    if not is_path or len(path) > _MOST_CHARACTERS:
        raise ValueError(
            f"the header X-Cycles-Agent {path!r:.160} is not 1 to {_MOST_NAMES} names of letters, digits, "
            f"'.', '_' and '-' with / between them, in at most {_MOST_CHARACTERS} characters"
        )
    return path


@define
class AgentTree:
    """What the agents of a run have used.

    Attributes:
        unit: The unit of all amounts.
        is_named: Whether a program has named an agent; otherwise the paths are those of shares, which have own lines.
    """

    unit: str = "USD_MICROCENTS"
    is_named: bool = False
    _used: dict[str, list[int]] = Factory(dict)

    def add(self, path: str, amount: int) -> None:
        """Count a call of an agent."""
        if path not in self._used and len(self._used) >= MOST_PATHS:
            path = OTHERS
        counts = self._used.setdefault(path, [0, 0])
        counts[0] += 1
        counts[1] += amount

    def document(self) -> dict[str, Any]:
        """Return the calls and the own spend of each path, as JSON."""
        return {
            path: {"calls": calls, "spent": {"unit": self.unit, "amount": spent}}
            for path, (calls, spent) in sorted(self._used.items())
        }

    def lines(self) -> list[str]:
        """Return a line for each agent, children below their parent, the one with the highest total first."""
        if not self.is_named:
            return []
        totals: dict[str, int] = {}
        for path, (_, spent) in self._used.items():
            for each in _with_parents(path):
                totals[each] = totals.get(each, 0) + spent
        return [self._line(path, totals[path]) for path in _in_order(totals, "")]

    def _line(self, path: str, total: int) -> str:
        calls, spent = self._used.get(path, (0, 0))
        name = path.rpartition("/")[2]
        own = f"{calls} {'call' if calls == 1 else 'calls'}, {shown(self.unit, spent)}"
        below = f" ({shown(self.unit, total)} with those below)" if total != spent else ""
        return f"{'  ' * path.count('/')}agent {name}: {own}{below}"


def _with_parents(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition("/")[0]


def _in_order(totals: dict[str, int], parent: str) -> Iterator[str]:
    children = [path for path in totals if path.rpartition("/")[0] == parent]
    for path in sorted(children, key=lambda each: (-totals[each], each)):
        yield path
        yield from _in_order(totals, path)
