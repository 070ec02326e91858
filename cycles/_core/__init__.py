"""Pure decisions: what to send, what an answer means, when to beat next.

Nothing here reads a clock, opens a socket or a file, or starts a thread or a task; time is handed in.
"""
