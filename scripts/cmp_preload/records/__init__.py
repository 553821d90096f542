"""What the pool leaves of a process: statistics and traces. The files, and what they add up to.

Uses: console.
"""
