"""What the user of any command meets: arguments, errors of one line, progress, numbers and
tables, where the documentation is.

Uses: no other room.
"""
