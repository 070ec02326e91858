"""Every message of the package follows one pattern: ``what happened: which value; what to do``.

A scan of the source collects all of them, so that none is left out (`make messages` prints the page). A table of
triggers raises errors for real and finds each of their messages on that page.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cycles
from tests.project.messages import PACKAGE, Message, collect, page

MESSAGES = collect()
ACTION = ("tool.call", "search")
# Words that begin a sentence and are written with a capital letter: names, acronyms, settings.
_CAPITAL = re.compile(r"Settlement\.|[A-Z]+\b|[A-Z][A-Z_]+|Retry-After|TLS|[A-Z][a-z]+\(")
# Errors that Python itself raises for attributes, in Python's own words, and internal errors that no user gets.
_NOT_CHECKED = ("AttributeError", "KeyError", "FileExistsError", "NotADirectoryError", "LookupError")
_OF_HTTPX = ("RemoteProtocolError", "ConnectError")  # the embedded transports raise what httpx raises


def is_known(message: Message) -> bool:
    """Whether the text is written here, and is not a value from elsewhere."""
    return not re.fullmatch(r"\{[^{}]*(\{[^{}]*\}[^{}]*)*\}|%s", message.text)


CHECKED = [message for message in MESSAGES if is_known(message) and message.kind not in _NOT_CHECKED + _OF_HTTPX]


def label(message: Message) -> str:
    return f"{message.path}:{message.line} {message.kind}"


def test_every_message_starts_in_lower_case_and_has_no_full_stop() -> None:
    wrong = []
    for message in CHECKED:
        text = message.text
        starts_well = not text[:1].isupper() or _CAPITAL.match(text)
        if (
            not starts_well
            or (text.endswith(".") and not text.endswith("..."))
            or "\n" in text
            or text != text.rstrip()
        ):
            wrong.append(f"{label(message)}: {text}")
    assert not wrong, "\n".join(wrong)


def test_every_message_is_a_sentence_and_not_a_single_word() -> None:
    joined = ("event", "log", "ApiError", "OSError")  # they consist of a value
    short = [message for message in CHECKED if len(message.text.split()) < 3 and message.kind not in joined]
    assert not [f"{label(message)}: {message.text}" for message in short if "{" not in message.text]


def test_every_error_of_a_wrong_value_shows_the_value_or_says_what_to_do() -> None:
    wrong = []
    for message in CHECKED:
        if message.kind in ("ConfigurationError", "InvalidRequestError") and "embedded" not in message.path:
            says = re.search(r"[:;,] |\{| must | cannot | unset|remove|use |pass ", message.text)
            if not says:
                wrong.append(f"{label(message)}: {message.text}")
    assert not wrong, "\n".join(wrong)


def test_the_page_has_every_raise_of_an_error_with_a_message() -> None:
    shown = {(message.path, message.line) for message in MESSAGES}
    missing = []
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE.parent))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
                called = ast.unparse(node.exc.func)
                argument = node.exc.args[0]
                is_written_here = called.endswith("Error") and isinstance(argument, ast.Constant | ast.JoinedStr)
                if is_written_here and (name, argument.lineno) not in shown:
                    missing.append(f"{name}:{node.lineno} {called}")
    assert not missing


def test_the_page_has_the_text_of_every_event() -> None:
    events = {name for name, value in vars(cycles.events).items() if isinstance(value, type) and "text" in vars(value)}
    source = Path(cycles.events.__file__).read_text("utf-8")
    tree = ast.parse(source)
    lines = {message.line for message in MESSAGES if message.kind == "event"}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in events - {"Event"}:
            assert any(node.lineno < line <= (node.end_lineno or 0) for line in lines), node.name


def test_the_page_shows_each_message_with_its_place() -> None:
    shown = page(MESSAGES)
    assert shown.count("\n") > len(MESSAGES)
    for message in MESSAGES[::25]:
        assert f"{message.line:>4} {message.kind}: {message.text}" in shown


def client(**settings: Any) -> cycles.Cycles:
    given: dict[str, Any] = {"base_url": "http://localhost", "api_key": "k", "tenant": "acme", "journal": False}
    return cycles.Cycles(**{**given, **settings})


def reserve(**options: Any) -> cycles.Reservation:
    call: dict[str, Any] = {"estimate": cycles.usd(1), "action": ACTION, **options}
    return client().reserve(**call)


def closed() -> Any:
    one = client()
    one.close()
    return one.pending()


def guard(**budgets: Any) -> cycles.Guard:
    one = cycles.Cycles.embedded({"tenant:acme": cycles.usd(10)}, journal=False)
    return one.reserve(cycles.usd(1), action=ACTION).acquire()


def ended() -> cycles.Guard:
    one = guard()
    one.release()
    return one


def spent(what: Callable[[cycles.Guard], Any]) -> Any:
    one = guard()
    try:
        return what(one)
    finally:
        one.release()


TRIGGERS: dict[str, Callable[[], Any]] = {
    "a setting that does not exist": lambda: client(timeot=1),
    "no address": lambda: client(base_url=""),
    "an address with a password": lambda: client(base_url="http://a:b@c"),
    "a wrong time": lambda: client(timeout="soon"),
    "a wrong boolean": lambda: client(shadow="no"),
    "a wrong count": lambda: client(max_connections=0),
    "a wrong word": lambda: client(durability="tape"),
    "a wrong directory": lambda: client(journal_dir=5),
    "a key that cannot be sent": lambda: client(api_key="\n"),
    "a closed client": closed,
    "an estimate that is no amount": lambda: reserve(estimate=5),
    "an action that is none": lambda: reserve(action="x"),
    "a subject that is none": lambda: reserve(subject=5),
    "a level that does not exist": lambda: reserve(subject={"tennant": "x"}),
    "no subject": lambda: client(tenant=None).reserve(cycles.usd(1), action=ACTION),
    "a key that is too long": lambda: reserve(idempotency_key="x" * 257),
    "an actual in another unit": lambda: reserve(actual=cycles.tokens(1)),
    "a wrong policy": lambda: reserve(lease_policy="panic"),
    "a wrong wait": lambda: reserve(wait=-1),
    "the guard's method on the reservation": lambda: reserve().commit,  # type: ignore[attr-defined]
    "a process pool": lambda: cycles.copy_context_to(__import__("concurrent.futures").futures.ProcessPoolExecutor(1)),
    "an observer that is none": lambda: client().on_event(5),  # type: ignore[arg-type]
    "a flush without an end": lambda: client().flush(float("inf")),
    "an operation that does not exist": lambda: client().raw("getBalance"),
    "a wrong header": lambda: client().raw("getBalances", tenant="acme", extra_headers={"Host": "x"}),
    "a naive datetime": lambda: client().reservations(created_from=__import__("datetime").datetime(2026, 1, 1)),
    "an id that is none": lambda: client().reservation(".."),
    "a commit of nothing": lambda: spent(lambda one: one.commit()),
    "a commit in another unit": lambda: spent(lambda one: one.commit(cycles.tokens(1))),
    "a second end": lambda: ended().release(),
    "spend after the end": lambda: ended().spend(cycles.usd(1)),
    "entering an ended guard": lambda: ended().__enter__(),
    "a stream on an ended guard": lambda: ended().wrap([]),
    "a stream that is none": lambda: spent(lambda one: one.wrap(5)),  # type: ignore[arg-type]
    "a reader that is none": lambda: spent(lambda one: one.wrap([], usage=5)),  # type: ignore[arg-type]
    "a token that is none": lambda: client().attach("x"),
    "an option of a series": lambda: client().lease_series(cycles.usd(1), action=ACTION, actual=1),  # type: ignore[call-arg]
    "a property": lambda: client().guarded(cycles.usd(1), action=ACTION)(property(lambda self: 1)),  # type: ignore[type-var]
    "a class": lambda: client().guarded(cycles.usd(1), action=ACTION)(int),
    "text that is no amount": lambda: cycles.Amount.parse("much"),
    "a negative amount": lambda: cycles.usd(-1),
    "amounts of two units": lambda: cycles.usd(1) + cycles.tokens(1),
    "a count that is none": lambda: cycles.Metrics(tokens_input="5"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_error_that_is_raised_is_on_the_page(trigger: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((cycles.CyclesError, TypeError)) as caught:
        trigger()
    text = str(caught.value)
    assert "\n" not in text
    assert not text.endswith(".")
    patterns = [re.sub(r"\\\{.*?\\\}", ".*", re.escape(message.text)) for message in CHECKED]
    assert any(re.fullmatch(pattern, text) for pattern in patterns if pattern != ".*"), text
