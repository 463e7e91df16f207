"""normexp: which normalization layer, at which batch size, and what does it cost?"""

__version__ = "0.1.0"
