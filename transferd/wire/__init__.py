"""The two languages that transferd speaks: the socket API and the worker link, model <-> JSON."""
