"""Prices, usage, the fake provider and guarded provider clients."""
