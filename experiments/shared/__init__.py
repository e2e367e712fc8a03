"""What the programs of several folders use: protocol, kept runs, flags, tables, timings."""
