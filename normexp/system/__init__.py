"""This process and what surrounds it; knows nothing of norms or runs.

The errors that are one line (``errors``), text that is fit to print (``printable``), signals and
standard streams of a command, files that others made (``foreign_files``) and that are written whole
or not at all (``writing``, ``figure_files``), memory, threads, torchrun, and random streams.
"""
