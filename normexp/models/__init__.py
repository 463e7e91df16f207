"""The networks: plain stacks of standard layers (``build``, ``residual``) that ask the factory
for their norms; where those stand, without torch (``plan``); those of others (``named``), what
they begin with (``weights``) and of which code they are (``source``), their norms found and
swapped (``swap``), their ``head``; several as one (``fuse``, ``side_by_side``, random
``streams``), and whether that may be (``proof``)."""
