"""What a guarded call costs, in counts that depend on no machine: requests, threads, wake-ups, modules, steps."""
