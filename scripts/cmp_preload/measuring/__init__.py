"""Runs of a program and replays of its trace: how long they take, whether results are the same, and
what that means.

Uses: records, pool, console.
"""
