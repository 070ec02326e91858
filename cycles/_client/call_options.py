"""Options of requests: those of a view of the client (`with_options`), and those of one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypedDict

from attrs import Factory, evolve, field, frozen

from cycles._client.options import check_timeout, checked_choice
from cycles._config import MOST_RETRIES, Config, LeasePolicy
from cycles._core.messages.requests import CallOptions
from cycles._core.subjects import Subject, as_subject
from cycles._core.values.headers import checked_headers, merged_headers
from cycles._errors import InvalidRequestError, did_you_mean


class RequestOptions(TypedDict, total=False):
    """Options that every operation takes for its own requests.

    Attributes:
        timeout: Seconds that one attempt may take.
        extra_headers: Headers to send in addition.
    """

    timeout: float | None
    extra_headers: Mapping[str, str] | None


REQUEST_OPTIONS: Final = tuple(RequestOptions.__annotations__)


@frozen
class ViewOptions:
    """What a view of a client changes; None leaves the setting of the client. `of_call`: for requests of operations."""

    timeout: float | None = None
    subject: Subject = field(factory=Subject)
    overage_policy: str | None = None
    lease_policy: LeasePolicy | None = None
    max_retries: int | None = None
    extra_headers: Mapping[str, str] = field(factory=dict, repr=False)
    of_call: CallOptions = field(init=False, repr=False, default=Factory(lambda self: self._of_call(), takes_self=True))

    def over(self, changes: Mapping[str, Any]) -> ViewOptions:
        """Return these options with checked changes, of which None changes nothing; subject and headers are merged.

        Raises:
            InvalidRequestError: A value is wrong.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        if not given:
            return self
        # Checked when the view is made, and not in the first call that uses it.
        for name, value in given.items():
            if name in _CHECKS:
                _CHECKS[name](value)
        if "subject" in given:
            given["subject"] = as_subject(given["subject"]).over(self.subject)
        if "extra_headers" in given:
            headers = checked_headers("extra_headers", given["extra_headers"])
            given["extra_headers"] = merged_headers(self.extra_headers, headers)
        return evolve(self, **given)

    def of_request(self, config: Config) -> dict[str, Any]:
        """Return the options of a `ReserveRequest`, with those of the configuration for what is None."""
        return {
            "lease_policy": self.lease_policy or config.lease_policy,
            "timeout": self.timeout,
            "extra_headers": self.extra_headers,
            "max_retries": config.max_retries if self.max_retries is None else self.max_retries,
        }

    def _of_call(self) -> CallOptions:
        """Return the options of the requests of an operation."""
        return CallOptions(timeout_s=self.timeout, headers=self.extra_headers, max_retries=self.max_retries)


def no_option(call: str, name: str, known: Iterable[str]) -> TypeError:
    """Return the error for a keyword that a call does not have. It names the one that may be meant."""
    return TypeError(f"{call}() has no option {name!r:.80}; use one of {', '.join(known)}{did_you_mean(name, known)}")


def keywords_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of the keyword-only parameters of a function."""
    code = function.__code__
    return code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]


def options_of_call(flow: Callable[..., Any], keywords: dict[str, Any]) -> dict[str, Any]:
    """Take the options of one call out of its keywords, if the operation has them as ``**request``.

    Raises:
        TypeError: The operation has no such keyword.
    """
    # From the code of the function: `inspect.signature` takes a hundred times as long, in each call.
    code = flow.__code__
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    if not keywords or "request" not in code.co_varnames[len(known) : len(known) + 1]:
        return {}
    given = {name: keywords.pop(name) for name in REQUEST_OPTIONS if name in keywords}
    unknown = [name for name in keywords if name not in known]
    if unknown:
        raise TypeError(
            f"{flow.__name__}() got an unexpected keyword argument {unknown[0]!r:.80}; "
            f"it takes {', '.join(known[1:])}, and the options of a call: {', '.join(REQUEST_OPTIONS)}"
            f"{did_you_mean(unknown[0], (*known, *REQUEST_OPTIONS))}"
        )
    return given


def check_retries(value: Any) -> None:
    """Check a number of retries.

    Raises:
        InvalidRequestError: if it is no integer from 0 to 10.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_RETRIES:
        raise InvalidRequestError(f"max_retries must be an integer from 0 to {MOST_RETRIES}, got {value!r:.80}")


_CHECKS: Final[Mapping[str, Callable[[Any], object]]] = {
    "timeout": check_timeout,
    "overage_policy": partial(checked_choice, "overage_policy"),
    "lease_policy": partial(checked_choice, "lease_policy"),
    "max_retries": check_retries,
}
