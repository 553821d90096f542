"""What the pool leaves of a process, statistics and traces: the files, and what they add up to."""
