"""The options of integrations, written once: their types, which editors complete, and their checks.

What differs between frameworks is a parameter of each object: `model_budget` and `tool_budget`, whose callables get the
framework's own call. This module has no postponed annotations: they would hide the types from `inspect`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, TypeAlias, TypedDict

from attrs import field, frozen

import cycles
from cycles import Amount, Cycles, InvalidRequestError, Subject, Usage
from cycles._errors import did_you_mean
from cycles.integrations._shared import standard_message

ToolBudget: TypeAlias = Amount | Callable[..., Amount | None] | Mapping[str, Any]
"""The estimate of a tool call: an amount, a callable of the call, or a mapping of both by tool name."""


class CallOptions(TypedDict, total=False):
    """The options of every integration: how a denial is handled, the subject, and the options of `Cycles.reserve`."""

    on_denied: Literal["raise", "message"] | Callable[..., str] | None
    subject: Subject | Mapping[str, Any] | Callable[..., Any] | None
    ttl_ms: int
    grace_period_ms: int | None
    overage_policy: str | None
    metadata: Mapping[str, Any] | None
    lease_policy: Literal["warn", "fail_on_finalize", "cancel"] | None
    shadow: bool | None
    on_unavailable: Literal["raise", "allow"] | None
    wait: float | None
    on_observed: Literal["raise", "run"] | None
    observe: bool
    timeout: float | None
    extra_headers: Mapping[str, str] | None
    settle: Literal["background"] | None


class ModelOptions(CallOptions, total=False):
    """The options of guarded models. `model_actual` returns the cost of a `Usage`, for example a `PriceBook`."""

    model_actual: Callable[[Usage], Amount] | None


class ToolOptions(CallOptions, total=False):
    """The options of guarded tools. `tool_actual`: an amount, or a callable of the call and the result."""

    tool_actual: Amount | Callable[..., Amount] | None


class AgentOptions(ModelOptions, ToolOptions, total=False):
    """The options of guarded agents: of their models and of their tools."""


@frozen
class Common:
    """The checked options of one integration object; `options` are those that `Cycles.reserve` gets.

    Raises:
        TypeError: for an option that `Cycles.reserve` does not have.
        InvalidRequestError: for a wrong value.
    """

    client: Cycles | None
    subject: Any = None
    on_denied: Any = None
    options: Mapping[str, Any] = field(factory=dict, converter=dict)
    model_budget: Any = None
    model_actual: Callable[[Usage], Amount] | None = None
    tool_budget: Any = None
    tool_actual: Any = None

    @classmethod
    def of(
        cls,
        client: Cycles | None,
        options: Mapping[str, Any],
        *,
        takes: tuple[str, ...] = (),
        is_optional: bool = False,
        **budgets: Any,
    ) -> Self:
        """Check the options of an object: its budgets, and those of `CallOptions` and its subclasses.

        Args:
            client: The Cycles client; by default the default client, looked up at each call.
            options: What the object was given besides; `model_actual` and `tool_actual` only beside their budget.
            takes: The arguments that a callable `tool_actual` must take.
            is_optional: Whether a budget may be None: such calls are not guarded.
            budgets: `model_budget`, `tool_budget`, or both.
        """
        actuals = [name.replace("budget", "actual") for name in budgets]
        own = {name: options[name] for name in ("subject", "on_denied", *actuals) if name in options}
        others = {name: value for name, value in options.items() if name not in own}
        for name, budget in budgets.items():
            checked_budget(name, budget, is_optional=is_optional, by_tool=name == "tool_budget")
        checked_actual("model_actual", own.get("model_actual"), is_amount=False)
        checked_actual("tool_actual", own.get("tool_actual"), takes=takes)
        return cls(client, options=others, **budgets, **own)

    def __attrs_post_init__(self) -> None:
        if self.client is not None and not isinstance(self.client, cycles.Cycles):
            raise InvalidRequestError(f"client must be a cycles.Cycles or None, got {self.client!r:.80}")
        if not (self.on_denied in (None, "raise", "message") or callable(self.on_denied)):
            raise InvalidRequestError(
                f"on_denied must be None, 'raise', 'message' or a callable, got {self.on_denied!r:.80}"
            )
        actuals = [f"{kind}_actual" for kind in ("model", "tool") if getattr(self, f"{kind}_budget") is not None]
        _check_options(self.options, None if callable(self.subject) else self.subject, actuals)

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


def checked_budget(name: str, value: Any, *, is_optional: bool = False, by_tool: bool = False) -> Any:
    """Check an estimate option when the integration object is made.

    Raises:
        InvalidRequestError: if it is no amount and no callable. With `is_optional` it may be None, and with `by_tool` a
            mapping of all of these by tool name.
    """
    if by_tool and isinstance(value, Mapping):
        for tool, budget in value.items():
            checked_budget(f"{name}[{tool!r:.40}]", budget, is_optional=True)
    elif not (isinstance(value, Amount) or callable(value) or (value is None and is_optional)):
        kinds = ", a callable or a mapping of them by tool name" if by_tool else " or a callable"
        raise InvalidRequestError(f"{name} must be an Amount such as cycles.usd('0.05'){kinds}, got {value!r:.80}")
    return value


def checked_actual(name: str, value: Any, *, is_amount: bool = True, takes: tuple[str, ...] = ()) -> Any:
    """Check an actual option when the integration object is made.

    Raises:
        InvalidRequestError: if it is no callable or None; with `is_amount` an Amount is allowed too. If it cannot take
            the arguments `takes`; a callable without a signature passes.
    """
    if takes and callable(value) and not _takes(value, takes, unknown=True):
        raise InvalidRequestError(f"{name} must take ({', '.join(takes)}), got {value!r:.80}, which takes others")
    if value is None or callable(value) or (is_amount and isinstance(value, Amount)):
        return value
    kinds = "an Amount or a callable" if is_amount else "a callable of the usage, such as a cycles.PriceBook"
    raise InvalidRequestError(f"{name} must be {kinds}, got {value!r:.80}")


def estimate_of(name: str, option: Any, tool: str | None, *call: Any) -> Amount | None:
    """Return the estimate of one call. None means that this call is not guarded.

    Raises:
        InvalidRequestError: if a callable returns something else than an amount or None.
    """
    chosen: Any = option.get(tool or "") if isinstance(option, Mapping) else option
    amount = chosen(*call) if callable(chosen) else chosen
    if amount is None or isinstance(amount, Amount):
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


def _check_options(options: Mapping[str, Any], subject: Any, actuals: list[str]) -> None:
    """Check the options as `reserve` does, with a client that sends nothing. `actuals` are options of this object."""
    known = [*CallOptions.__annotations__, *actuals]
    for name in options:
        if name not in CallOptions.__annotations__:
            raise TypeError(f"unknown option {name!r:.80}; use one of {', '.join(known)}{did_you_mean(name, known)}")
    probe = cycles.Cycles(cycles.Config(base_url="http://localhost", api_key="none", tenant="none", journal=False))
    try:
        probe.reserve(cycles.usd(0), action=("integration", "check"), subject=subject, **options)
    finally:
        probe.close()
