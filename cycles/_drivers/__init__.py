"""The only threads, tasks and clocks: they run the flows of `cycles._flows` in blocking code and on event loops."""
