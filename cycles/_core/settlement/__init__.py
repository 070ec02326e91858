"""One amount on its way to the ledger: its record, what a response means for it, the states of its guard."""
