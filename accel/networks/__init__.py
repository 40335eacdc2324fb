"""Networks that ship with the package, and the data they are tested on."""
