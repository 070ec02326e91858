"""The lease planner: when to send the next heartbeat. Pure functions of the time and of what was received."""
