"""What belongs to the service of a machine beside the code, and how it gets there and away."""
