"""What is written down about unfinished settlements: the record's format, and the files."""
