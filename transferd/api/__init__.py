"""The socket: routes, who may call them, and their answers."""
