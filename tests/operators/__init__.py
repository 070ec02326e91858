"""The command line, the guard proxy and the dashboard.

Tests that start processes, a browser or SDKs are marked with `processes`: `make test-operators` runs them, `make test`
skips them and says so. The others run in this process.
"""
