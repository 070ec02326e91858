"""The order in which things happen, written once: open a lease, keep it alive, settle, release, recover, ask.

Flows are coroutines over the verbs of `cycles._io.Io`. They own no thread, no task, no clock; what they decide, they
ask the pure core. Whether a verb suspends is the driver's business.
"""
