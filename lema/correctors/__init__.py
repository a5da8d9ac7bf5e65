"""Programs that put mistakes into paths and find them."""
