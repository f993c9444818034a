"""What the daemon does: use cases, scheduling, notification, supervision of workers."""
