"""The bill of a provider beside the ledger: what `cycles reconcile` compares. It imports no SDK of a provider."""
