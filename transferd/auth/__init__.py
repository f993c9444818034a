"""Authentication schemes as conversations: generators without a socket and without an await."""
