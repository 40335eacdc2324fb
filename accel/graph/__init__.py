"""The network: its operators, importers and the networks that ship with the package."""
