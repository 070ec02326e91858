"""The life of a guard: one table of transitions, one writer, and the page that prints both tables."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from typing import get_args

import pytest

from cycles._core.settlement import lifecycle
from cycles._core.settlement.lifecycle import BLOCK_ENDINGS, TRANSITIONS, GuardEvent, StateName, next_state
from tests.core.test_protocol import rows_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "protocol" / "guards.md"
STATES = get_args(StateName)
EVENTS = get_args(GuardEvent)


def test_there_are_ten_states_and_each_has_its_rows() -> None:
    assert len(STATES) == 10
    assert set(TRANSITIONS) == set(STATES)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(STATES, EVENTS)))
def test_a_pair_that_the_table_does_not_have_is_rejected(state: StateName, event: GuardEvent) -> None:
    following = TRANSITIONS[state].get(event)
    if following is None:
        with pytest.raises(ValueError, match=f"{state}.*{event}"):
            next_state(state, event)
    else:
        assert next_state(state, event) == following


def test_the_page_prints_the_table_of_states() -> None:
    printed = {row[0]: row[2] for row in rows_of(PAGE, "state")}
    assert printed == {
        state: "; ".join(f"{event}: {following}" for event, following in TRANSITIONS[state].items()) or "none"
        for state in STATES
    }


def test_the_page_allows_what_leads_to_another_state() -> None:
    may = {row[0]: row[1].split(", ") for row in rows_of(PAGE, "state")}
    for state, rows in TRANSITIONS.items():
        assert ("detach" in may[state]) == ("detached" in rows)
        assert ("release" in may[state]) == ("release_started" in rows or state == "observed")
        assert ("extend" in may[state]) == ("lease_lost" in rows or "extended" in rows)
        assert (may[state] == ["read"]) == (not rows.keys() - {"settled", "rejected"} and state != "observed")


SPENT = {"yes": "yes", "no": "no", "counted": "no, but usage was counted"}
HAPPENS = {
    "commit_spend": "commit the spend",
    "call_actual": "commit what the callable returns",
    "commit_actual": "commit that amount",
    "release_uncommitted": f"release, reason {lifecycle.NOT_COMMITTED}",
    "release_raised": "release with a reason that names the exception",
}


def test_the_page_prints_the_table_of_block_endings() -> None:
    printed = rows_of(PAGE, "raised?")
    assert len(printed) == len(BLOCK_ENDINGS)
    for cells, row in zip(printed, BLOCK_ENDINGS, strict=True):
        assert cells[:3] == ["yes" if row.raised else "no", SPENT[row.spend], row.actual]
        assert cells[3].startswith(HAPPENS[row.action])


def writers(source: str) -> list[str]:
    """The functions that assign to an attribute `state` or `_state`."""
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            targets = [target for node in ast.walk(function) for target in assigned(node)]
            if any(isinstance(target, ast.Attribute) and target.attr in ("state", "_state") for target in targets):
                found.append(function.name)
    return found


def assigned(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.Assign):
        return [leaf for target in node.targets for leaf in ast.walk(target) if is_store(leaf)]
    if isinstance(node, ast.AnnAssign | ast.AugAssign):
        return [node.target]
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "setattr":
        return [ast.Attribute(node, str(getattr(node.args[1], "value", "")))]
    return []


def is_store(node: ast.AST) -> bool:
    return isinstance(getattr(node, "ctx", None), ast.Store)


def test_apply_is_the_only_writer_of_a_state() -> None:
    found = {
        (path.relative_to(ROOT).as_posix(), name)
        for folder in ("_flows", "_drivers", "_core", "_client")
        for path in (ROOT / "cycles" / folder).rglob("*.py")
        for name in writers(path.read_text(encoding="utf-8"))
    }
    # `GuardState.__init__` sets the first state; `GuardProperties.__init__` stores the object, not its state.
    allowed = {("cycles/_flows/guard_state.py", "__init__"), ("cycles/_client/guard_properties.py", "__init__")}
    # A chunk of a pool is no guard: it has its own states and its own table.
    chunk = {("cycles/_core/pool/allotment.py", "__init__"), ("cycles/_core/pool/allotment.py", "change")}
    # The first state of a pooled guard, and objects that store the object of a guard's state.
    allowed.add(("cycles/_client/pool.py", "__init__"))
    allowed.add(("cycles/_client/guard.py", "_take"))
    assert found - allowed - chunk == {("cycles/_flows/guard_state.py", "apply")}


def test_the_scan_finds_a_writer() -> None:
    assert writers("def f(guard):\n    guard.settlement, guard.state = 1, 2") == ["f"]
    assert writers("def f(guard):\n    setattr(guard, 'state', 2)") == ["f"]
