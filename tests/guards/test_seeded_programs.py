"""A program that has seeded Python's random generator gets the same numbers with the SDK as without it."""

from __future__ import annotations

import random

import cycles

from .conftest import ACTION, Shop


def test_a_retried_guard_takes_no_number_of_the_generator(shop: Shop) -> None:
    client = shop.client(retry_initial_delay=0.001)
    random.seed(7)
    before = random.getstate()
    shop.faults.drop_response("reserve", times=1)
    shop.faults.drop_response("commit", times=2)
    with client.reserve(cycles.tokens(100), action=ACTION) as guard:
        guard.commit(cycles.tokens(7))
    assert client.flush(30).pending == 0
    client.close()
    assert random.getstate() == before
