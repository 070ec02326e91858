"""Check that the handwritten layer fits a protocol: when the client is generated, and again in `make check`.

The handwritten result classes read a full response of each operation, and one with only the required members. A
response that a class cannot read is reported with the module to change, so that no user finds it at run time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from generator.coverage import gaps
from generator.protocol import Tables
from generator.samples import Samples

# Operation id: the class in cycles/_core/results.py that reads its response, and the list of its items, if any.
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
    """Return what has to be changed in handwritten code, one line each; empty if everything fits."""
    return [*gaps(tables.operations), *_unreadable(tables)]


def _unreadable(tables: Tables) -> Iterator[str]:
    samples = Samples(tables.schemas)
    for name, (reader, member) in READERS.items():
        if name in tables.operations:
            for full in (False, True):
                problem = _read(samples, tables.operations[name]["response"], reader, member, full=full)
                if problem is not None:
                    what = "a full response" if full else "a response with only the required members"
                    yield f"operation {name}: {reader} in cycles/_core/results.py cannot hold {what}: {problem}"
                    break


def _read(samples: Samples, schema: str | None, reader: str, member: str | None, *, full: bool) -> str | None:
    from cycles._core import results

    if schema is None:
        return "it no longer has a body"
    response = samples.of({"$ref": schema}, full=True if member else full)
    items: list[Any] = [response]
    if member is not None:
        if member not in response:
            return f"it no longer has the list {member}"
        items = [samples.of(_items(samples, schema, member), full=full)]
    try:
        for item in items:
            getattr(results, reader).read(item)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _items(samples: Samples, schema: str, member: str) -> Any:
    return samples.schemas[schema]["properties"][member]["items"]
