"""The pages of the API reference: every public name of `cycles`, made from signatures and docstrings.

A page lists the names that one module defines. mkdocstrings fills in the rest when the site is built.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Final

import cycles
from website.errors import BuildError

# Page -> (title, what the page is about, the modules whose public names it lists).
PAGES: Final[dict[str, tuple[str, str, tuple[str, ...]]]] = {
    "client": (
        "Client",
        "The client, its settings, and the context that its calls use.",
        (
            "cycles._client.client",
            "cycles._config",
            "cycles._client.context",
            "cycles._client.default",
            "cycles._client.tracing",
        ),
    ),
    "guards": (
        "Reservations and guards",
        "What describes a reservation, and what users hold while budget is reserved.",
        ("cycles._client.reservation", "cycles._client.guard", "cycles._client.series", "cycles._client.streams"),
    ),
    "amounts": (
        "Amounts, subjects, usage and prices",
        "The values that requests are made of, with their units.",
        ("cycles._core.amounts", "cycles._core.subjects", "cycles._core.values.usage", "cycles.prices"),
    ),
    "results": (
        "Results",
        "What the server returned, and how an amount was settled.",
        (
            "cycles._core.results",
            "cycles._core.settlement.settlement",
            "cycles._core.values.action_kinds",
            "cycles._core.values.deny_detail",
        ),
    ),
    "errors": ("Errors", "Every exception and warning, with the rule of the protocol behind it.", ("cycles._errors",)),
    "webhooks": ("Webhooks", "Verify what a server sends.", ("cycles.webhooks",)),
    "evidence": ("Evidence", "Verify what a server signed.", ("cycles.evidence",)),
    "admin": ("Administration", "Tenants, budgets, keys and webhooks.", ("cycles.admin",)),
    "embedded": ("Embedded server", "A server for development and tests.", ("cycles.embedded",)),
}
# Page -> modules whose names it shows after those of its own.
FURTHER: Final = {"admin": ("cycles.admin.results",)}
# What the reader of an error can do -> the errors. The page of the errors has these headings.
ERRORS: Final = {
    "All errors": "CyclesError ProtocolError TransportError",
    "Correct the call or a setting: nothing was sent": (
        "ConfigurationError InvalidRequestError UnknownModelError ToolNotAllowedError StepsExhaustedError "
        "GuardFinalizedError UncommittedGuardWarning"
    ),
    "Stop, or raise the budget: the action must not run": (
        "ReservationDeniedError BudgetExceededError BudgetFrozenError BudgetClosedError DebtOutstandingError "
        "OverdraftLimitExceededError ActionNotPermittedError ActionQuotaExceededError ApprovalDeniedError "
        "ObservedReservationError"
    ),
    "Try again later: the server was not reached or is busy": (
        "AmbiguousResponseError ServerError RateLimitedError JournalUnavailableError StoreError"
    ),
    "Ask who manages keys and tenants": (
        "UnauthorizedError ForbiddenError InsufficientPermissionsError TenantClosedError NotFoundError "
        "DuplicateResourceError BulkActionError"
    ),
    "Look at what happened before: the reservation or the key was used": (
        "ReservationExpiredError ReservationFinalizedError ReservationNotActiveError ReservationKeyReusedError "
        "IdempotencyMismatchError MaxExtensionsExceededError LeaseLostError UnitMismatchError"
    ),
    "Do not trust what was received": (
        "WebhookError WebhookSignatureError WebhookPayloadError WebhookReplayError EvidenceError EvidenceRejectedError"
    ),
}
_ERROR_OPTIONS: Final = """
    options:
      heading_level: 3
      merge_init_into_class: false
      inherited_members: false
"""
INTEGRATIONS: Final = Path(cycles.__file__).parent / "integrations"
# Modules that are public as a whole.
MODULES: Final = ("events", "providers", "usage", "kinds", "journal", "testing")


def write(target: Path) -> dict[str, str]:
    """Write the pages into `target`, and return the title of each file.

    Raises:
        BuildError: A public name has no docstring.
    """
    homes = dict(names_by_module())
    bare = sorted({bare for names in homes.values() for name in names for bare in undocumented(name)})
    if bare:
        raise BuildError(f"no docstring: {', '.join(bare)}; write one that gives units and errors")
    target.mkdir(parents=True, exist_ok=True)
    titles = {}
    for page, (title, about, modules) in PAGES.items():
        names = [name for module in modules for name in homes.pop(module)]
        shown = [f"cycles.{name}" for name in names if _has_signature(name)]
        if page == "errors":
            _error_page(target / "errors.md", title, about, names)
        else:
            _page(target / f"{page}.md", title, about, [*shown, *FURTHER.get(page, ())])
        titles[f"{page}.md"] = title
    if homes:
        _page(target / "more.md", "More", "Other public names.", [f"cycles.{name}" for name in chain(*homes.values())])
        titles["more.md"] = "More"
    for module in MODULES:
        _page(target / f"{module}.md", f"`cycles.{module}`", "", [f"cycles.{module}"])
        titles[f"{module}.md"] = f"cycles.{module}"
    integrations = [f"cycles.integrations.{path.stem}" for path in sorted(INTEGRATIONS.glob("[a-z]*.py"))]
    _page(target / "integrations.md", "`cycles.integrations`", "Guards inside a framework.", integrations)
    titles["integrations.md"] = "cycles.integrations"
    return titles


def names_by_page() -> dict[str, list[tuple[str, str]]]:
    """Return the public names of each page with a docstring, each after the module that defines it."""
    homes, found = dict(names_by_module()), dict[str, list[tuple[str, str]]]()
    for page, (_, _, modules) in PAGES.items():
        found[page] = [(module, name) for module in modules for name in homes.pop(module) if _has_signature(name)]
    found["more"] = [(module, name) for module, names in homes.items() for name in names if _has_signature(name)]
    return found


def missing(contents: str) -> Iterator[str]:
    """Yield each public name, and each public member of a class, that the pages in `contents` do not show."""
    for name in chain(*names_by_module().values()):
        if not _has_signature(name):
            continue
        shown = [f"cycles.{name}", *(f"cycles.{name}.{member}" for member in _members(getattr(cycles, name)))]
        yield from (each for each in shown if f'id="{each}"' not in contents)


def _members(value: Any) -> Iterator[str]:
    """Yield the public methods and properties of a class that this package defines.

    An error shows its own: what all errors have is at their common base.
    """
    homes = value.__mro__ if inspect.isclass(value) else ()
    for home in homes[:1] if homes and issubclass(value, Exception) else homes:
        if home.__module__.split(".")[0] == "cycles":
            yield from (name for name, found in vars(home).items() if not name.startswith("_") and _is_code(found))


def names_by_module() -> dict[str, tuple[str, ...]]:
    """Return the public names that each module defines."""
    homes: dict[str, tuple[str, ...]] = vars(cycles)["_HOMES"]
    return homes


def undocumented(name: str) -> Iterator[str]:
    """Yield the public name, and the public members of a class, that have no docstring."""
    value = getattr(cycles, name)
    if not _has_signature(name):
        return  # a constant or an alias of a type
    if not inspect.getdoc(value):
        yield name
    if inspect.isclass(value):
        for member, found in vars(value).items():
            if not member.startswith("_") and _is_code(found) and not inspect.getdoc(getattr(value, member)):
                yield f"{name}.{member}"


def _has_signature(name: str) -> bool:
    return callable(getattr(cycles, name))


def _is_code(value: Any) -> bool:
    return inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod)


def _error_page(path: Path, title: str, about: str, names: list[str]) -> None:
    """Write the page of the errors, in groups, without the constructor that all of them share.

    Raises:
        BuildError: An error is in no group, or in two.
    """
    grouped = [name for listed in ERRORS.values() for name in listed.split()]
    if wrong := sorted(set(names) ^ set(grouped)) or sorted({name for name in grouped if grouped.count(name) > 1}):
        raise BuildError(f"ERRORS in website/reference.py does not list each error once: {', '.join(wrong)}")
    parts = [f"# {title}\n\n{about}\n"]
    for heading, listed in ERRORS.items():
        parts.append(f"\n## {heading}\n")
        parts += [f"\n::: cycles.{name}{_ERROR_OPTIONS}" for name in listed.split()]
    path.write_text("".join(parts), encoding="utf-8")


def _page(path: Path, title: str, about: str, names: list[str]) -> None:
    directives = "\n\n".join(f"::: {name}" for name in names)
    path.write_text(f"# {title}\n\n{about}\n\n{directives}\n".replace("\n\n\n", "\n"), encoding="utf-8")
