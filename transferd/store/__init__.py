"""The queue file: SQLite speaks here only."""
