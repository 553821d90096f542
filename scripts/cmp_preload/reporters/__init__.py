"""What was found, for readers: a module for each format (text for a terminal, a page, JSON), and the
advice, tables and plots that these share.

Uses: measuring, records, console.
"""
