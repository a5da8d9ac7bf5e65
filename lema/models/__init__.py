"""Model backends, one file each, named after its function, and what they share."""
