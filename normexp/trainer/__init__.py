"""What happens to numbers in a run: the ``loop``, which tells and writes nothing down, its
``steps``, the optimizer and its rate, evaluation, diagnostics, several processes (``ranks``), and
runs trained as one network (``fusing``)."""
