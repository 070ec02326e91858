"""Whether the handwritten layer fits a protocol: asked when the client is generated, and again by `make check`.

It is asked by use: each answer, full and with nothing but its required members, is read by the handwritten class that
stands for it. What does not fit is said here, with the module to change, and not by an exception at run time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from generator.coverage import gaps
from generator.protocol import Tables
from generator.samples import Samples

# Operation id: the class in cycles/_core/results.py that its answer becomes, and the list its items are in, if any.
READERS: Final[dict[str, tuple[str, str | None]]] = {
    "decide": ("DecisionResponse", None),
    "createReservation": ("ReservationCreateResponse", None),
    "listReservations": ("ReservationSummary", "reservations"),
    "getReservation": ("ReservationDetail", None),
    "commitReservation": ("CommitResponse", None),
    "releaseReservation": ("ReleaseResponse", None),
    "extendReservation": ("ReservationExtendResponse", None),
    "getEvidence": ("EvidenceEnvelope", None),
    "getEvidenceJwks": ("EvidenceKey", "keys"),
    "getBalances": ("Balance", "balances"),
    "createEvent": ("EventCreateResponse", None),
}


def misfits(tables: Tables) -> list[str]:
    """What handwritten code has to be changed for, a line each; empty where everything fits."""
    return [*gaps(tables.operations), *_unreadable(tables)]


def _unreadable(tables: Tables) -> Iterator[str]:
    samples = Samples(tables.schemas)
    for name, (reader, member) in READERS.items():
        if name in tables.operations:
            for full in (False, True):
                problem = _read(samples, tables.operations[name]["response"], reader, member, full=full)
                if problem is not None:
                    what = "a full answer" if full else "an answer with nothing but required members"
                    yield f"operation {name}: {reader} in cycles/_core/results.py cannot hold {what}: {problem}"
                    break


def _read(samples: Samples, schema: str | None, reader: str, member: str | None, *, full: bool) -> str | None:
    from cycles._core import results

    if schema is None:
        return "it has no body any more"
    answer = samples.of({"$ref": schema}, full=True if member else full)
    items: list[Any] = [answer]
    if member is not None:
        if member not in answer:
            return f"there is no list {member} in it any more"
        items = [samples.of(_items(samples, schema, member), full=full)]
    try:
        for item in items:
            getattr(results, reader).read(item)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _items(samples: Samples, schema: str, member: str) -> Any:
    return samples.schemas[schema]["properties"][member]["items"]
