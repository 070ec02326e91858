"""The order of steps, written once: reserve, renew, commit, release, end a block, transfer.

Flows are coroutines over the operations of `cycles._flows.io.Io`. They own no thread, task or clock, and leave each
decision to the pure functions of `cycles._core`. The driver decides whether an operation suspends.
"""
