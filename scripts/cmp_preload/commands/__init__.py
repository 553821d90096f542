"""One module for each command: its options, and the order in which it does things."""
