"""How an outside conformance suite runs the scenarios of the recovery profile here."""
