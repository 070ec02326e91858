"""What a guarded call costs, side by side with its floors and a sibling, in one interleaved run: `make bench`.

Ratios within one run are the findings; absolute figures drift with the machine. Nothing here is part of the tests.
"""
