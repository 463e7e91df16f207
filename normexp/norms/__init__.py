"""The norms. Each stands in one place: its facts above its layer, in one of the files that
``catalogue`` lists and reads without torch. ``rules`` says where norms cannot work, ``factory``
builds them; ``bn_stats`` says, and ``population`` does, what they use for running averages in
evaluation."""
