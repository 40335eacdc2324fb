"""Fixed-point models of operators that have no hardware block yet: bit-exact, in integers only, each with a derived error bound."""
