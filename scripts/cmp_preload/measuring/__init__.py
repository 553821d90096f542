"""Runs of a program and replays of its trace: times, results, and what is to be thought of them."""
