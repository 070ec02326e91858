"""A simulation of the whole system: one seed decides every order, delay, loss and crash. See `docs/how-we-test.md`.

Flows, drivers, core and ledger are the real ones. Only the edges are simulated: time, threads, event loops, network,
disk and processes.
"""
