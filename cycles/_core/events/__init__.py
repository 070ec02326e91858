"""The classes of events that need more than a name and members. `cycles.events` offers them."""
