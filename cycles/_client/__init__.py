"""What users hold: the client, its operations, reservations, guards, decorators, streams."""
