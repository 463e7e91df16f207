"""What a run can be asked to be, and what a person got wrong in asking; no norm and no network is
known here.

``schema`` has the keys, each with its docstring and, by ``keys``, its bounds and whether it is part
of the identity; ``checks`` refuses what is none of them or cannot be, ``choices`` what is no choice
of a group. ``settings`` and ``plain_texts`` read a command line for Hydra, ``command_line`` one
that is not Hydra's; ``explain`` and ``one_line`` make one line of any error in them. ``own_code``
finds what a key names by ``module:function``.
"""
