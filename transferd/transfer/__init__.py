"""Pure judgements of a transfer: what to ask, what to keep, how long to wait."""
