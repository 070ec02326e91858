"""The guard proxy of ``cycles run`` and ``cycles proxy``: it relays provider requests and charges what they cost.

`cycles.providers` plans, prices, limits and settles each request; this package only adds HTTP. Nothing here is public,
but for `cycles.delegate`. See `docs/run-under-a-budget.md`.
"""
