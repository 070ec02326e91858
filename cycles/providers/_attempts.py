"""The attempts of one request. One that is sent and gets no status is charged, and the next one is reserved first.

The hooks of an SDK share one `Attempts`, because the SDK sends each attempt inside one call of its client. Attempts
that end with a status share a reservation. The provider may have made and billed the response of an attempt without
one, so its reservation ends with its whole bound.
"""

from __future__ import annotations

from attrs import define, field

from cycles.providers._admission import Need
from cycles.providers._call import Call
from cycles.providers._settle import Caller


@define(eq=False)
class Attempts:
    """The attempts of one request.

    Attributes:
        call: The call of the attempt that is sent now, or was sent last.
    """

    call: Call
    _sessions: int = field(default=0, init=False)  # that were requested in this attempt

    def begin(self) -> None:
        """Note that an attempt begins."""
        self.call.attempts += 1
        self._sessions = 0

    def is_second_session(self) -> bool:
        """Note that the attempt gets a session of aiohttp; return whether it has had one, and is sent again."""
        self._sessions += 1
        return self._sessions == 2

    @property
    def is_lost(self) -> bool:
        """Whether the last attempt was lost and is charged, so that the next one needs a reservation."""
        return self.call.end is not None

    async def failed(self, caller: Caller, response: object, error: BaseException | None) -> None:
        """Charge the last attempt if it was lost: the SDK will send another one."""
        if self.call.retried(response, error):
            await caller.end(self.call, None, error)

    async def reserve_next(self, caller: Caller, *, is_fixed: bool = False) -> int | None:
        """Reserve the attempt after a lost one, as a call of its own, and return the cap of its output.

        Args:
            caller: What sends it.
            is_fixed: Its request cannot be changed, so its output limit is that of the lost attempt.

        Raises:
            CyclesError: as `Cycles.reserve` does; nothing more is sent to the provider.
        """
        self.call = _next(self.call, is_fixed=is_fixed)
        return await caller.open(self.call)


def _next(lost: Call, *, is_fixed: bool) -> Call:
    made = lost.again()
    if is_fixed:
        made.reserved, made.sent_limit = lost.reserved, lost.sent_limit
        made.need = Need(lost.reserved.amount)
    return made
