"""Work that continues without its caller: the queue, what one attempt does, and the workers."""
