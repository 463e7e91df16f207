"""The networks: plain stacks of standard layers that ask the factory for their norms."""
