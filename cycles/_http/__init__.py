"""HTTP over our own sockets or the user's httpx client. Nothing here knows the protocol of a Cycles server."""
