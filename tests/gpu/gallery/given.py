"""What the programs of the gallery are given: PROGRAM.py [ROUNDS] [--cpu]."""

import sys

CPU = "--cpu" in sys.argv[1:]  # to see that a program works, where there is no GPU


def rounds(usual: int) -> int:
    numbers = [word for word in sys.argv[1:] if word.isdigit()]
    return int(numbers[0]) if numbers else usual
