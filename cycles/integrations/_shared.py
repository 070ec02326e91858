"""Options that all integrations take, what a denial becomes, and the error for a library that is not installed.

`_work.py` makes the guarded calls, and `_cost.py` calculates what they cost. No file of this folder imports a private
module of `cycles`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from attrs import field, frozen

import cycles
from cycles import (
    InvalidRequestError,
    ReservationDeniedError,
    StepsExhaustedError,
    ToolNotAllowedError,
)

if TYPE_CHECKING:
    from cycles import Amount, Cycles, Subject

OnDenied: TypeAlias = Literal["raise", "message"] | Callable[..., str] | None
SubjectOption: TypeAlias = "Subject | Mapping[str, Any] | Callable[..., Any] | None"
BudgetOption: TypeAlias = "Amount | Callable[..., Amount | None] | Mapping[str, Amount] | None"

DENIALS: Final = (ReservationDeniedError, ToolNotAllowedError, StepsExhaustedError)
"""What a denial is. Every other error means that the budget could not be checked, and is raised."""

_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_OWN: Final = ("self", "estimate", "action", "subject", "actual", "idempotency_key")
"""Parameters of `Cycles.reserve` that an integration fills itself."""


def require(module: str, extra: str) -> None:
    """Import the library that an integration needs.

    Raises:
        ImportError: if the library is not installed; the message has the line that installs it. An ImportError from
            inside the library is raised unchanged.
    """
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ImportError(
            f"this integration needs the package {module.partition('.')[0]}, which is not installed; "
            f"install it with: pip install 'cycles-sdk[{extra}]'",
            name=error.name,
        ) from error


@frozen
class Common:
    """The options that are the same for all calls of one integration object.

    Raises:
        TypeError: for an option that `Cycles.reserve` does not have.
        InvalidRequestError: for a wrong value.
    """

    client: Cycles | None = field()
    subject: SubjectOption = None
    on_denied: OnDenied = field(default=None)
    options: Mapping[str, Any] = field(factory=dict, converter=dict)

    def __attrs_post_init__(self) -> None:
        if self.client is not None and not isinstance(self.client, cycles.Cycles):
            raise InvalidRequestError(f"client must be a cycles.Cycles or None, got {self.client!r:.80}")
        if not (self.on_denied in (None, "raise", "message") or callable(self.on_denied)):
            raise InvalidRequestError(
                f"on_denied must be None, 'raise', 'message' or a callable, got {self.on_denied!r:.80}"
            )
        _check_options(self.options, None if callable(self.subject) else self.subject)

    def reserving(self) -> Cycles:
        """Return the client: the given one, or the default client, which is looked up at each call."""
        return self.client or cycles.get_default_client()

    def subject_of(self, *call: Any) -> Any:
        """Return the subject of one call. `call` is what callables of this integration get."""
        return self.subject(*call) if callable(self.subject) else self.subject

    def message(self, error: Exception, *call: Any, default: Literal["raise", "message"]) -> str:
        """Return the text that the model reads instead of a result.

        Args:
            error: The denial.
            call: Passed to a callable `on_denied` behind the error, if it takes that many arguments.
            default: What `on_denied=None` means for this kind of call.

        Raises:
            Exception: `error` itself, if a denial is raised.
        """
        choice = self.on_denied or default
        if choice == "raise":
            raise error
        if callable(choice):
            return str(choice(error, *call) if _takes(choice, (error, *call)) else choice(error))
        return standard_message(error)


def standard_message(error: Exception) -> str:
    """Return the message for the model. Model output is public, so it has no tenant, scope, amount, id or address."""
    return f"The budget does not allow this call ({code_of(error)}). Do not try it again; continue without it."


def code_of(error: Exception) -> str:
    """Return the code of a denial, without anything else that a server may have written."""
    if isinstance(error, ToolNotAllowedError):
        return "TOOL_NOT_ALLOWED"
    if isinstance(error, StepsExhaustedError):
        return "STEPS_EXHAUSTED"
    code = getattr(error, "code", None) or getattr(error, "reason_code", None)
    return code if isinstance(code, str) and _CODE.fullmatch(code) else "DENIED"


def checked_budget(name: str, value: Any, *, mapping: bool = False) -> BudgetOption:
    """Check an estimate option when the integration object is made.

    Raises:
        InvalidRequestError: if it is no amount, callable or None; with `mapping` also a mapping of tool names.
    """
    amounts = list(value.values()) if mapping and isinstance(value, Mapping) else [value]
    for amount in amounts:
        if not (amount is None or isinstance(amount, cycles.Amount) or callable(amount)):
            kinds = "an Amount such as cycles.usd('0.05')" + (
                ", a callable or a mapping of them by tool name" if mapping else " or a callable"
            )
            raise InvalidRequestError(f"{name} must be {kinds}, got {amount!r:.80}")
    return value  # type: ignore[no-any-return]


def withhold(error: Exception) -> None:
    """Make the standard message the string of a denial: frameworks write errors into messages, which are public.

    Its attributes stay, and its own text becomes a note.
    """
    public = standard_message(error)
    if error.args != (public,):
        error.add_note(f"cycles: {error}")
        error.args = (public,)


def checked_actual(name: str, value: Any, *, amount: bool, takes: tuple[str, ...] = ()) -> Any:
    """Check an actual option when the integration object is made.

    Raises:
        InvalidRequestError: if it is no callable or None; with `amount` an Amount is allowed too. If it cannot take
            the arguments `takes`; a callable without a signature passes.
    """
    if takes and callable(value) and not _takes(value, takes, unknown=True):
        raise InvalidRequestError(f"{name} must take ({', '.join(takes)}), got {value!r:.80}, which takes others")
    if value is None or callable(value) or (amount and isinstance(value, cycles.Amount)):
        return value
    kinds = "an Amount or a callable" if amount else "a callable of the usage, such as a cycles.PriceBook"
    raise InvalidRequestError(f"{name} must be {kinds}, got {value!r:.80}")


def estimate_of(name: str, option: BudgetOption, tool: str | None, *call: Any) -> Amount | None:
    """Return the estimate of one call. None means that this call is not guarded.

    Raises:
        InvalidRequestError: if a callable returns something else than an amount or None.
    """
    chosen: Any = option.get(tool or "") if isinstance(option, Mapping) else option
    amount = chosen(*call) if callable(chosen) else chosen
    if amount is None or isinstance(amount, cycles.Amount):
        return amount
    raise InvalidRequestError(f"{name} must return an Amount or None, got {amount!r:.80}")


def _takes(function: Callable[..., Any], arguments: tuple[Any, ...], *, unknown: bool = False) -> bool:
    """Return whether a callable takes these arguments; `unknown` if it has no signature, as some built-in ones."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return unknown
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _check_options(options: Mapping[str, Any], subject: Any) -> None:
    """Check the options as `reserve` does, with a client that sends nothing."""
    known = [name for name in inspect.signature(cycles.Cycles.reserve).parameters if name not in _OWN]
    for name in options:
        if name not in known:
            raise TypeError(f"unknown option {name!r:.80}: the options of reserve are {', '.join(known)}")
    probe = cycles.Cycles(cycles.Config(base_url="http://localhost", api_key="none", tenant="none", journal=False))
    try:
        probe.reserve(cycles.usd(0), action=("integration", "check"), subject=subject, **options)
    finally:
        probe.close()
