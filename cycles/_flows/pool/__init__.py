"""The flows of a pool: many guards that share one reservation, its chunk. See `docs/pools.md`."""
