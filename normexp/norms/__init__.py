"""The norms: what they are called, where they cannot work, and the factory that builds them."""
