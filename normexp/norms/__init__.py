"""The norms: what they are called and their facts (``catalogue``), where they cannot work
(``rules``, without torch), the layers, and the ``factory`` that builds them; ``bn_stats`` says, and
``population`` does, what they use for running averages in evaluation."""
