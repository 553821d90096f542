"""What stands in the way of the pool, on this machine and in a program; each finding with what to do."""
