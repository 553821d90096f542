"""What stands in the way of the pool on this machine and in a program: findings, each with what to do.

Uses: records, pool, console.
"""
