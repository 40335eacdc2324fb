"""A training step as tiles for three engines: products, vector work, updates, and what of it waits for what."""
