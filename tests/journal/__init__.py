"""What is saved about unfinished settlements: the record's format, and the files."""
