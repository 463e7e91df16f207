"""The networks: plain stacks of standard layers (``build``, ``residual``) that ask the factory for
their norms; where those stand, without torch (``plan``); several as one (``fuse``)."""
