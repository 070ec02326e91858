"""The faults that `make mutate` plants are of the kinds that it names, and each changes one place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation.mutants import Mutant, mutants_of

ROOT = Path(__file__).parents[2]


def faults(source: str) -> set[tuple[str, str, str]]:
    return {(mutant.kind, *mutant.change) for mutant in mutants_of("cycles/x.py", source)}


@pytest.mark.parametrize(
    ("source", "kind", "old", "new"),
    [
        ("a = b < c", "comparison", "a = b < c", "a = b <= c"),
        ("a = b is  not c", "comparison", "a = b is  not c", "a = b is c"),
        ("a = b not in (c)", "comparison", "a = b not in (c)", "a = b in (c)"),
        ("a = (b) == (c)", "comparison", "a = (b) == (c)", "a = (b) != (c)"),
        ("a = b and c", "operator", "a = b and c", "a = b or c"),
        ("a = 'ä' + b", "operator", "a = 'ä' + b", "a = 'ä' - b"),
        ("a = not b", "operator", "a = not b", "a = (b)"),
        ("a = 1_000", "constant", "a = 1_000", "a = 1001"),
        ("a = True", "constant", "a = True", "a = False"),
        ("if a:\n    b = c", "branch", "if a:", "if (not (a)):"),
        ("a = b if c else d", "branch", "a = b if c else d", "a = b if (not (c)) else d"),
        ("def f():\n    a()", "call", "a()", "pass"),
        ("async def f():\n    await a()", "call", "await a()", "pass"),
        ("async def f():\n    return await a", "await", "return await a", "return (a)"),
        ("with self._lock:\n    a = b", "lock", "with self._lock:", "if True:"),
        ("try:\n    a = b\nexcept OSError as e:\n    raise", "except", "except OSError as e:", "except () as e:"),
    ],
)
def test_each_kind_of_fault(source: str, kind: str, old: str, new: str) -> None:
    assert (kind, old, new) in faults(source)


def kinds(source: str) -> list[str]:
    return [mutant.kind for mutant in mutants_of("cycles/x.py", source)]


def test_two_statements_are_exchanged_if_others_can_see_their_order() -> None:
    source = "def f(self):\n    self.record = a\n    self.is_set = b\n"
    (mutant,) = mutants_of("cycles/x.py", source)
    assert mutant.mutated == "def f(self):\n    self.is_set = b\n    self.record = a\n"
    assert kinds("def f():\n    a = b\n    c = d\n") == []
    assert kinds("def f():\n    a = b\n    c = a\n") == ["order"]
    assert kinds("class A:\n    def __init__(self):\n        self.a = b\n        self.c = d\n") == []


@pytest.mark.parametrize(
    "source",
    [
        'def f():\n    """Text."""\n    return a',
        "def f(a: 1 | 2 = b) -> 3:\n    return a",
        "a: Literal[1]",
        "@limit(1)\ndef f():\n    return a",
        "if TYPE_CHECKING:\n    a = 1",
        "class A(Protocol):\n    a = 1",
        "a = f'{1 + 2}'",
        "a = 'text'",
        "a = zip(b, c, strict=True)",
        "a = attrs.field(init=False)",
    ],
)
def test_what_is_no_behaviour_stays(source: str) -> None:
    assert faults(source) == set()


def test_a_fault_knows_its_lines_and_its_statement() -> None:
    source = "a = b\n\n\ndef f():\n    if (\n        c\n        < d\n    ):\n        return 1\n"
    constant, comparison = sorted(mutants_of("cycles/x.py", source), key=lambda mutant: mutant.kind, reverse=True)
    assert (constant.first, constant.last, constant.statement, constant.in_function) == (9, 9, (9, 9), True)
    assert (comparison.first, comparison.last, comparison.statement) == (7, 7, (5, 8))
    assert constant.diff.splitlines()[-2:] == ["-        return 1", "+        return 2"]
    assert not mutants_of("cycles/x.py", "a = 1\n")[0].in_function
    (exchanged,) = [
        each for each in mutants_of("cycles/x.py", "def f(g):\n    g.a()\n    g.b()\n") if each.kind == "order"
    ]
    assert (exchanged.first, exchanged.last, exchanged.statement, exchanged.in_function) == (2, 3, (2, 3), True)
    assert not mutants_of("cycles/x.py", "def f(\n    a=1\n):\n    return a\n")[0].in_function


def test_every_fault_of_a_file_changes_few_lines() -> None:
    path = ROOT / "cycles" / "_http" / "connection_pool.py"
    found: list[Mutant] = mutants_of("cycles/_http/connection_pool.py", path.read_text("utf-8"))
    assert len(found) > 50
    assert len({mutant.mutated for mutant in found}) == len(found)
    for mutant in found:
        compile(mutant.mutated, mutant.path, "exec")
        assert all(mutant.change)
