"""Planted faults of the guard proxy and of the hooks of SDKs. `planted.py` runs them."""

from __future__ import annotations

from typing import Final

from tests.simulation.planted_faults import Fault

SDK_FAULTS: Final = (
    Fault(
        "the proxy does not end a call whose program leaves before the response",
        "cycles/proxy/_relay.py",
        "        except BaseException as error:\n            await self.failed(call, error)\n            raise\n",
        "        except BaseException:\n            raise\n",
        most=2_000,
    ),
    Fault(
        "the proxy counts a lost request as not sent",
        "cycles/proxy/_app.py",
        "        call.attempts = 1\n",
        "",
        most=2_000,
    ),
    Fault(
        "the proxy does not end a call whose stream is left",
        "cycles/proxy/_relay.py",
        "        finally:\n            await self._ended(call, response, outcome)\n"
        "        await exchange.finish(rest)\n",
        "        await self._ended(call, response, outcome)\n        await exchange.finish(rest)\n",
        most=2_000,
    ),
    Fault(
        "the proxy charges a whole response before it is read",
        "cycles/proxy/_relay.py",
        "            content = await response.aread()\n            call.whole(content)\n",
        "            await TASK.end(call, None)\n            content = await response.aread()\n",
        most=2_000,
    ),
    Fault(
        "a lost attempt that an SDK repeats is not charged",
        "cycles/providers/_attempts.py",
        "        if self.call.retried(response, error):\n            await caller.end(self.call, None, error)\n",
        "        self.call.retried(response, error)\n",
        most=2_000,
    ),
    Fault(
        "a request of an SDK that fails ends its first attempt only",
        "cycles/providers/_stainless.py",
        "            await caller.end(_last(current), None, error)\n",
        "            await caller.end(call, None, error)\n",
        most=2_000,
    ),
    Fault(
        "an attempt over a watched httpx client counts as not sent",
        "cycles/providers/_httpx.py",
        "    call.attempts = 1\n",
        "",
        most=2_000,
    ),
    Fault(
        "the events of a stream that a task reads are not seen",
        "cycles/providers/_pump.py",
        "                chunk = await anext(source, None)\n            data = pump.take(chunk)\n",
        "                chunk = await anext(source, None)\n            pump.exhausted = chunk is None\n"
        "            data = chunk or b''\n",
        most=2_000,
    ),
    Fault(
        "a request of an SDK whose task is cancelled is not ended",
        "cycles/providers/_stainless.py",
        "        except BaseException as error:\n            await caller.end(_last",
        "        except Exception as error:\n            await caller.end(_last",
        most=2_000,
    ),
    Fault(
        "the bound of a call that a guard pays is not written ahead",
        "cycles/providers/_settle.py",
        "    guard._runtime.ahead.sent(guard._state, found[0])\n    call.noted, call.guard = found[0], guard\n",
        "    call.noted, call.guard = 0, guard\n",
        most=2_000,
    ),
    Fault(
        "the bound of a call that a guard has paid stays written ahead",
        "cycles/providers/_settle.py",
        "    guard._runtime.ahead.ended(guard._state, noted)\n",
        "",
        most=2_000,
    ),
    Fault(
        "a guard pays for the last attempt of an SDK only",
        "cycles/providers/_settle.py",
        "        guard.spend(ending.amount)\n",
        "        if call.responded:\n            guard.spend(ending.amount)\n",
        most=2_000,
    ),
)
