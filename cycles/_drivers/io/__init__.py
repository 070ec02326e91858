"""The operations of flows (`cycles._flows.io.Io`), carried out by threads and by the tasks of an event loop."""
