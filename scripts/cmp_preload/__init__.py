"""The command line program cmp-preload: cli.py on top, below it rooms, each of which uses only rooms
that stand after it here:

commands, reporters, measuring, diagnosis, records, pool, console
"""
