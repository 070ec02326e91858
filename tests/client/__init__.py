"""What users touch all day: money, caps, usage, prices, the decorator, streams, guards and their logs."""
