"""Every message of the SDK says what happened, with which value, and what to do (`make messages` prints them all)."""

from __future__ import annotations

import gc
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import cycles
from tests.support import triggers
from tests.support.messages import Collector, Message, page
from tests.support.triggers import SECRET, Call, Site

PARTS = ("problem of ", "message of ", "detail of ", "hint of ", "why of ", "event ", "log record", "warning ")
"""Kinds that are a part of another message, or that report what happens next instead of a remedy."""
INNER = {
    "BrokenUpstreamError",
    "CannotSealError",
    "ExchangeError",
    "JournalIssue",
    "KeyUnavailableError",
    "LossyNumberError",
    "ModeFailedError",
    "OSError",
    "RecordError",
    "ReportError",
    "StrictJsonError",
    "TimeoutError",
    "UnreachableError",
}
"""Errors of the inside: their text becomes a part of the message of a public error or of an event."""
PYTHON = {"CancelledError", "FileExistsError", "NotADirectoryError", "HTTPException", "KeyError", "ValueError"}
"""Errors of Python and of other libraries, which are caught inside or extend a message of the SDK."""
HINTED = {"ApiError FORBIDDEN", "ApiError NOT_FOUND", "ApiError UNIT_MISMATCH"}
"""Error responses of the embedded server to which the client adds what to do."""
UNCHECKED = {"AttributeError", "ConnectError", "ReadTimeout", "RemoteProtocolError"}
"""Errors that repeat the wording of Python or of httpx, because they are raised in its place."""
PROTOCOL_CODE = re.compile(r"[A-Z_]+(\{[\w.]+\})?")
"""The embedded server sends an error or reason code as the message, as the reference server does."""
REMEDY = re.compile(r"[:;] |\bmust\b|\bneeds?\b|, got |\(.*=.*\)")
"""A message has a second part (after a colon or a semicolon), or it says what a value must be."""


@pytest.fixture(scope="module")
def collector() -> Collector:
    return Collector()


@pytest.fixture(scope="module")
def messages(collector: Collector) -> list[Message]:
    return collector.messages()


def problems_of(message: Message) -> list[str]:
    """Return what is wrong with the form of a message."""
    text = message.text
    if message.is_forwarded or PROTOCOL_CODE.fullmatch(text) or message.kind in UNCHECKED:
        return []
    shown = re.sub(r"\{[^{}]*\}", "{}", text)
    checks = {
        "has more than one line": "\n" in text or text != text.strip(),
        "starts with a capital letter": bool(re.match(r"(?!Landlock )[A-Z][a-z]+ ", text)),
        "ends with a full stop": text.endswith((".", "!")),
        "has more than one sentence": bool(re.search(r"[.!?] [A-Z]", shown)),
        "has a value of unbounded length": bool(re.search(r"\{[\w.]+(\[[^:}]*\])?!r\}", text)),
        "says neither which value nor what to do": needs_remedy(message) and not REMEDY.search(text),
    }
    return [f"{message.place}: {problem}: {text}" for problem, found in checks.items() if found]


def needs_remedy(message: Message) -> bool:
    return not message.kind.startswith(PARTS) and message.kind not in INNER | PYTHON | HINTED


def test_every_message_follows_the_pattern(messages: list[Message]) -> None:
    problems = [problem for message in messages for problem in problems_of(message)]
    assert not problems, "\n".join(problems)


def test_no_raise_statement_is_missing_from_the_page(collector: Collector) -> None:
    assert collector.raises_without_message() == []


def test_the_page_has_the_messages_of_every_layer(messages: list[Message]) -> None:
    places = {message.place.split("/")[1] for message in messages}
    assert places >= {"_client", "_core", "_flows", "_http", "_journal", "admin", "embedded", "providers"}
    printed = page(messages)
    assert "InvalidRequestError\n" in printed
    assert all(message.text in printed for message in messages)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Wrong value: {value!r:.80}; pass another", "starts with a capital letter"),
        ("wrong value: {value!r:.80}; pass another.", "ends with a full stop"),
        ("wrong value: {value!r:.80}. Pass another", "has more than one sentence"),
        ("wrong value: {value!r}; pass another", "has a value of unbounded length"),
        ("wrong value", "says neither which value nor what to do"),
        ("wrong value: 1\npass another", "has more than one line"),
    ],
)
def test_a_message_that_breaks_the_pattern_is_reported(text: str, problem: str) -> None:
    assert problem in problems_of(Message("InvalidRequestError", text, "cycles/x.py:1"))[0]


FEWEST_LETTERS = 8
"""Letters of a message beside its values: one with fewer would fit every text."""
LONGEST = 700
"""Characters of the longest message: one that lists every count of a usage."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = triggers.open_site(tmp_path_factory.mktemp("messages"))
    yield site
    site.client.close()
    site.server.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # guards that an error still refers to must not be dropped in a later test


@pytest.fixture(scope="module")
def texts(messages: list[Message]) -> Callable[[str], bool]:
    """Return a function that says whether a text is a message of the page, with values in its placeholders."""
    forms = [form_of(message.text) for message in messages]
    forms = [form for form in forms if len(re.findall("[a-z]", form)) >= FEWEST_LETTERS]
    known = re.compile("|".join(f"(?:{form})" for form in forms), re.DOTALL)
    return lambda text: known.fullmatch(text) is not None


def form_of(text: str) -> str:
    """Return the regular expression of a message; a value may contain braces of its own expression."""
    gap = "\0"
    while re.search(r"\{[^{}]*\}", text):
        text = re.sub(r"\{[^{}]*\}", gap, text)
    return re.escape(text).replace(re.escape(gap), ".*")


def raised(call: Call) -> Exception:
    with pytest.raises((cycles.CyclesError, TypeError)) as caught:
        call()
    return caught.value


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("group", ["settings", "arguments", "states"])
def test_a_raised_error_has_a_message_of_the_page(site: Site, texts: Callable[[str], bool], group: str) -> None:
    calls = triggers.settings() if group == "settings" else getattr(triggers, group)(site)
    assert calls
    for name, call in calls.items():
        error = raised(call)
        check(name, error)
        if not isinstance(error, cycles.ProtocolError):  # the message of a server
            assert texts(str(error)), f"{name}: {error}"
    del calls, call, error
    gc.collect()  # guards that the errors refer to are dropped here, where the warning is expected


@pytest.mark.parametrize(("name", "call"), list(triggers.responses()), ids=[name for name, _ in triggers.responses()])
def test_the_error_of_a_response_names_the_request(name: str, call: Call) -> None:
    error = raised(call)
    check(name, error)
    if isinstance(error, cycles.ProtocolError) and error.code:
        assert f"{error.code}, HTTP {error.status}" in str(error)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_a_client_reports_is_a_message_of_the_page(texts: Callable[[str], bool], tmp_path: Path) -> None:
    events = triggers.reports(tmp_path)
    kinds = {name.rpartition(" ")[2] for name in events}
    assert kinds >= {
        "ActualFailed",
        "GuardNotCommitted",
        "JournalProblem",
        "LeaseLost",
        "LeaseRetrying",
        "ReleaseFailed",
        "SettlementPending",
        "ShadowSettled",
        "Undercharged",
        "Unreserved",
        "ValuesOmitted",
    }
    for name, event in events.items():
        check_text(name, event.text())
        # An event without a text but its detail has the detail on the page.
        assert any(map(texts, (event.text(), getattr(event, "detail", "")))), f"{name}: {event.text():.300}"


def check(name: str, error: Exception) -> None:
    check_text(name, str(error))


def check_text(name: str, text: str) -> None:
    assert "\n" not in text, name
    assert not text.endswith(".") or text.endswith("..."), name  # three dots: a long value
    assert len(text) <= LONGEST, f"{name}: {len(text)} characters: {text:.200}"
    assert SECRET not in text, name
    assert re.match(r"(?!Landlock )[A-Z][a-z]+ ", text) is None, name


def test_a_denial_says_what_was_requested_and_which_scope_has_too_little(site: Site) -> None:
    text = str(raised(lambda: site.guard(estimate=cycles.usd(2))))
    left = site.server.ledger.balance("tenant:acme").remaining  # earlier tests of this site may hold some of it
    assert f"tenant:acme has {left} left, and $2.00 is needed; a larger budget lets it pass" in text
    details = {"scope": "tenant:acme", "remaining": 98_000_000}
    body = {"error": "BUDGET_EXCEEDED", "message": "no budget", "request_id": "req-1", "details": details}
    text = str(raised(triggers.reserving(httpx.Response(409, json=body))))
    assert "requested $0.05 on tenant:acme; tenant:acme has $0.98 left" in text
