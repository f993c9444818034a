"""Pure data and decisions about jobs; imports nothing else of transferd."""
