"""Where the SDK touches the world: sockets (`wire` and what it sends through) and files (`journal`)."""
