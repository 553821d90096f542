"""The command line program cmp-preload."""
