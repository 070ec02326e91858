"""Each setting of a client takes the values at its limits and rejects the next ones, as a keyword and as a variable."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import cycles
from cycles._config import without_password

DAY = 86_400
STORE = dict.fromkeys(("put", "get", "take", "renew", "delete", "list", "close"), print)
INTEGERS = {
    "max_connections": (1, 10_000),
    "max_retries": (0, 10),
    "journal_claim_ms": (1_000, 600_000),
    "journal_checkpoint_ms": (1, 600_000),
}
SECONDS = ("timeout", "connect_timeout", "retry_initial_delay", "retry_max_delay", "journal_store_timeout")
GOOD: list[tuple[str, Any]] = [
    *((name, bound) for name, bounds in INTEGERS.items() for bound in bounds),
    *((name, value) for name in SECONDS for value in (1e-9, DAY, 3)),
    ("flush_timeout", 0),
    ("flush_timeout", DAY),
    ("approve_above", 0),
    ("approve_above", 1),
    *(("durability", word) for word in ("process", "disk")),
    *(("journal_outage", word) for word in ("disk", "memory", "refuse")),
    *(("lease_policy", word) for word in ("warn", "fail_on_finalize", "cancel")),
    *(("on_observed", word) for word in ("raise", "run")),
    *(("journal", value) for value in (True, False)),
    *(("shadow", value) for value in (True, False)),
    *(("base_url", url) for url in ("http://h", "https://h:1", "https://h:65535/a/b", "http://[::1]:80")),
    *(("journal_store", f"{scheme}://h/0") for scheme in ("redis", "rediss", "valkey", "postgresql", "file")),
    *((level, "a b/c") for level in ("tenant", "workspace", "app", "workflow", "agent", "toolset")),
]
OF_KEYWORDS: list[tuple[str, Any]] = [
    ("journal_store", SimpleNamespace(**STORE)),
    ("journal_dir", Path("a")),
    ("journal_dir", "~/a"),
    ("default_headers", {}),
    ("approve", print),
    ("api_key", print),
]
BAD: list[tuple[str, Any]] = [
    *((name, least - 1) for name, (least, _) in INTEGERS.items()),
    *((name, most + 1) for name, (_, most) in INTEGERS.items()),
    *((name, value) for name in SECONDS for value in (0, -1, DAY + 0.001, float("nan"))),
    *(("flush_timeout", value) for value in (-0.001, DAY + 0.001, float("nan"))),
    *(("approve_above", value) for value in (-0.001, 1.001, float("nan"))),
    *((name, "Disk") for name in ("durability", "journal_outage")),
    *((name, "Raise") for name in ("lease_policy", "on_observed")),
    *(("base_url", url) for url in ("h", "ftp://h", "http://:80", "http://h:0", "http://h:65536", "http://a b")),
    *(("base_url", f"http://{rest}") for rest in ("u@h", "u:p@h", ":p@h", "h?q=1", "h#f", "h/\x7f")),
    *(("journal_store", url) for url in ("redis", "redis:/h", "http://h", "REDIS://h", "://h")),
    *(("api_key", key) for key in ("k\u00e9y", "k\ty", "\x7f")),
]
OF_WRONG_KEYWORDS: list[tuple[str, Any]] = [
    *((name, value) for name in INTEGERS for value in (True, 1.0, "1")),
    *((name, value) for name in (*SECONDS, "flush_timeout", "approve_above") for value in (True, "1")),
    *((name, value) for name in ("journal", "shadow") for value in (0, 1, "true")),
    *((level, 5) for level in ("tenant", "workspace", "app", "workflow", "agent", "toolset")),
    *(("journal_store", SimpleNamespace(**{**STORE, name: None})) for name in STORE),
    *(("journal_store", SimpleNamespace(**{each: print for each in STORE if each != name})) for name in STORE),
    *(("journal_dir", value) for value in (5, "a\0b", Path("a\0b"))),
    *(("default_headers", value) for value in ([("a", "b")], "a: b")),
    *(("api_key", value) for value in (5, b"k", "", " k", "k ", "k\n")),
    ("base_url", 5),
    ("approve", True),
]


def named(value: object) -> str:
    return ascii(value)[:50] if isinstance(value, str | int | float) else type(value).__name__


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BASE_URL", "API_KEY", "TENANT", "JOURNAL_DIR"):
        monkeypatch.delenv(f"CYCLES_{name}", raising=False)


@pytest.mark.parametrize(("name", "value"), [*GOOD, *OF_KEYWORDS], ids=named)
def test_a_value_at_a_limit_is_taken(name: str, value: Any) -> None:
    found = getattr(cycles.Config(**{name: value}), name)
    assert found == (Path(value) if name == "journal_dir" else value)
    assert getattr(cycles.Config().with_settings(**{name: value}), name) == found


@pytest.mark.parametrize(("name", "value"), [*BAD, *OF_WRONG_KEYWORDS], ids=named)
def test_a_value_beyond_a_limit_is_rejected_and_named(name: str, value: Any) -> None:
    for make in (cycles.Config, cycles.Config().with_settings, cycles.Config.from_env):
        with pytest.raises(cycles.ConfigurationError, match=f"^{name} "):
            make(**{name: value})


@pytest.mark.parametrize("prefix", ["CYCLES_", "MY_"])
@pytest.mark.parametrize(("name", "value"), GOOD, ids=named)
def test_a_variable_has_the_same_limits(name: str, value: Any, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"{prefix}{'JOURNAL_URL' if name == 'journal_store' else name.upper()}"
    other = "MY_" if prefix == "CYCLES_" else "CYCLES_"
    monkeypatch.setenv(variable, f" {value} ")
    monkeypatch.setenv(variable.replace(prefix, other), "")  # counts as unset
    assert getattr(cycles.Config.from_env(prefix), name) == value
    assert getattr(cycles.Config.from_env(other), name) == getattr(cycles.Config(), name)


@pytest.mark.parametrize(("name", "value"), BAD, ids=named)
def test_a_wrong_variable_is_the_one_that_is_named(name: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    variable = f"MY_{'JOURNAL_URL' if name == 'journal_store' else name.upper()}"
    monkeypatch.setenv(variable, str(value))
    with pytest.raises(cycles.ConfigurationError, match=f"^{variable} "):
        cycles.Config.from_env("MY_")


@pytest.mark.parametrize(
    ("value", "default", "keyword", "found"),
    [("3", 5.0, None, 3.0), ("3", 5.0, 4.0, 4.0), ("nonsense", 5.0, 4.0, 4.0), (" ", 5.0, None, 5.0)],
)
def test_a_keyword_goes_before_a_variable_and_none_counts_as_not_given(
    monkeypatch: pytest.MonkeyPatch, value: str, default: float, keyword: float | None, found: float
) -> None:
    assert cycles.Config().timeout == default
    monkeypatch.setenv("CYCLES_TIMEOUT", value)
    assert cycles.Config.from_env(timeout=keyword).timeout == found


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h/0", "redis://h/0"),
        ("redis://u:p@h/0", "redis://[hidden]@h/0"),
        ("redis://u:p@p@h/0", "redis://[hidden]@h/0"),
        ("redis://u:p\np@h/0", "redis://[hidden]@h/0"),
        ("u:p@h", "[hidden]@h"),
        ("postgresql://h/d?password=p", "postgresql://h/d?[hidden]"),
        ("postgresql://h/d?a=b\npassword=p", "postgresql://h/d?[hidden]"),
        ("postgresql://u:p@h/d?password=p&a=b?c", "postgresql://[hidden]@h/d?[hidden]"),
    ],
    ids=ascii,
)
def test_an_address_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(("given", "kept"), [("http://h/", "http://h"), (" http://h/a/// ", "http://h/a")])
def test_an_address_loses_blanks_and_slashes_at_its_end(given: str, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYCLES_BASE_URL", given)
    assert [cycles.Config(base_url=given).base_url, cycles.Config.from_env().base_url] == [kept, kept]


@pytest.mark.parametrize(("connect", "whole", "usable"), [(2.0, 5.0, 2.0), (5.0, 2.0, 2.0), (3.0, 3.0, 3.0)])
def test_connecting_takes_no_longer_than_a_whole_attempt(connect: float, whole: float, usable: float) -> None:
    assert cycles.Config(connect_timeout=connect, timeout=whole).usable_connect_timeout == usable
