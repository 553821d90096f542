"""What was found, as people and programs read it: one module for each format, on tables that they share."""
