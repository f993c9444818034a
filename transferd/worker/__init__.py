"""The data plane: one process per owner, one task per job; network, files, no database."""
