"""The preparation rules, one thought per module. Each looks at shapes only: no schema or path of a protocol is named.

A rule changes the prepared copy of a document in place and counts what it did, so that a run can say it.
"""
