"""Records of other versions: a newer one adds members that this version does not know, and must keep."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

from cycles._core.settlement.record import CHECK, check_of
from tests.simulation.checks import agent_of, files
from tests.simulation.hub import Hub
from tests.simulation.swarm import Swarm

FEATURE: Final = "other versions"
NEWER: Final = {"settled_by": {"version": "9.1", "steps": [1, None, "x"]}, "priority": 3}


class OtherVersions:
    """Rewrites records of dead processes, as a process of a newer version would that has looked at them and died.

    Args:
        hub: The machine.
        swarm: The features of the run.
        root: The folder of all journals.
    """

    def __init__(self, hub: Hub, swarm: Swarm, root: Path) -> None:
        self._hub, self._swarm, self._root = hub, swarm, root
        self._random = Random(f"versions {hub.seed}")
        self._newer: set[str] = set()  # the reservations of records that have the members

    def rewrite(self, in_use: set[str], has_another: Callable[[str], bool]) -> None:
        """Rewrite records that dead processes have left.

        Args:
            in_use: The agents of guards of living processes, whose records stay.
            has_another: Returns whether a store, `rejected/` or a living process has the record of a reservation, too,
                without members: a client that never sees the file may settle that of a store, and a loss of power may
                bring the file of a rejected one back.
        """
        if FEATURE not in self._swarm:
            return
        for path, record in list(files(self._root, "v2-*.json")):
            if "reservation_id" in record and agent_of(record) not in in_use and self._random.random() < 0.7:
                new = path.with_suffix(".other")
                members = {name: value for name, value in record.items() if name != CHECK} | NEWER
                has_check = self._random.random() < 0.5  # other SDKs write records without one
                check = {CHECK: check_of(members)} if has_check else {}
                new.write_bytes(json.dumps(check | members).encode())
                os.replace(new, path)  # noqa: PTH105 - as the other process does
                if not has_another(record["reservation_id"]):
                    self._newer.add(record["reservation_id"])
                self._swarm.matters(FEATURE)

    def changed(self, kept: Iterable[dict[str, Any]]) -> Iterator[str]:
        """Yield the rejected records that have lost members of the newer version."""
        for each in kept:
            record = each["record"]
            if record["reservation_id"] in self._newer and any(record.get(name) != NEWER[name] for name in NEWER):
                yield f"the record of {agent_of(record)} has lost members of a newer version"
