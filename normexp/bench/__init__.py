"""What things cost, measured in one process and in turn: ``python -m normexp.bench --help``.

``cells`` makes of a command line what is measured, ``engine`` times and keeps it; ``steps``,
``norms`` and ``growth`` say what: as ``rows`` of a table, its ``COLUMNS`` to print, and ``draw``.
"""
