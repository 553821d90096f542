"""What the user of any command meets: arguments, errors of one line, progress, numbers and tables.

Uses: no other room.
"""
