"""What is sent and received: calls, reserve requests, outcomes, the exceptions for them, checks against the schemas."""
