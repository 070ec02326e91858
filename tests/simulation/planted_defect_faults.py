"""Defects that this project once had, planted again in the form that has their effect in the code of today."""

from __future__ import annotations

from typing import Final

from tests.simulation.planted_faults import Fault

DEFECT_FAULTS: Final = (
    Fault(
        "a limit that another thread has entered last cannot be left",
        "cycles/_flows/run_limit.py",
        "        LIMITS.set((*LIMITS.get(), self))\n"
        "        return self\n"
        "\n"
        "    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:\n"
        "        # The innermost entry of this limit is removed: it may have been entered twice, "
        "and others may be inside it.\n"
        "        around = list(LIMITS.get())\n"
        "        if self in around:  # else the block was entered in another context\n"
        "            around.reverse()\n"
        "            around.remove(self)\n"
        "            LIMITS.set(tuple(reversed(around)))\n"
        "\n",
        "        tokens = globals().setdefault('_tokens', {}).setdefault(id(self), [])\n"
        "        tokens.append(LIMITS.set((*LIMITS.get(), self)))\n"
        "        return self\n"
        "\n"
        "    def __exit__(self, kind: object, raised: BaseException | None, tb: object) -> None:\n"
        "        LIMITS.reset(globals()['_tokens'][id(self)].pop())\n"
        "\n",
        most=400,
    ),
    Fault(
        "a guard without a reservation can be detached",
        "cycles/_flows/transfer.py",
        '    if guard.state == "unreserved" and not guard.finalized:\n',
        "    if False:\n",
    ),
)
