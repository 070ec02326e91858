"""What operators do with journals: read all of them without a change, and retry, discard or move records by hand."""
