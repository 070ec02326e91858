"""The preparation rules, one topic per module. A rule looks at shapes only: it names no schema or path of a protocol.

A rule changes the prepared copy of a document in place and counts its changes, which the run prints.
"""
