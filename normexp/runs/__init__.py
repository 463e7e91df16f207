"""Runs: what they are called, how a sweep of them is planned, and all that is kept of them.

``composing`` makes of settings the configuration of a run, ``identity`` its name, ``directory``
its files; ``records`` and ``recorded_config`` read them. ``planning`` composes the jobs of a
sweep and writes its ``plan``; ``sweep_job`` takes one and ``sweep`` tells of
all, by their ``outcomes``. ``one_run``
finds what is done and has the rest trained by ``training``, from the lock to result.json;
``recording`` goes through what the training loop tells, and ``seed_run`` writes it down for one
seed, with ``checkpoint``, ``tensorboard`` and ``console``. ``groups`` says which are trained
together, ``beginning`` whether a shorter run is the beginning of one; ``named`` finds the runs
that a person means by a folder.
"""
