"""One module for each command: its options, and what it does in which order. They know nothing of
each other.

Uses: reporters, measuring, diagnosis, records, pool, console.
"""
