"""Files of a journal: how they are made, locked, mapped and found again after their process has died."""
