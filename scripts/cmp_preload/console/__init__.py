"""What the user sees of every command: arguments, errors of one line, progress, numbers and tables."""
