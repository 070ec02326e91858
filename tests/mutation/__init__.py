"""Plant small faults at random, one at a time, and see whether the tests find them: `make mutate`."""
