"""Pools: what the guards of a chunk sum up to, and how its cell keeps that. No clock, no lock and no file."""
