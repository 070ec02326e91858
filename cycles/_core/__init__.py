"""Pure decisions: what to send, what a response means, when to send the next heartbeat.

Nothing in this package reads a clock, opens a socket or a file, or starts a thread or a task. Functions take the time.
"""
