"""From operators to matrix products, tiles and instructions, and to the transfers that feed the blocks."""
