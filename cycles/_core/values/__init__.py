"""Values of the protocol and of its text form: JSON, counts, caps, headers, secrets. None of them knows a message."""
