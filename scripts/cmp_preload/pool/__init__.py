"""The pool as a program gets it: the library and its settings, the environment that preloads it, and
which programs a preload reaches.

Uses: console.
"""
