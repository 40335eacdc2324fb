"""Bit-exact models of the blocks: one public function per RTL block, of the same name."""
