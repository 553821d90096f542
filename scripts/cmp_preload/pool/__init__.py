"""The pool as a program gets it: the library, its settings, the environment, and which programs a
preload reaches."""
