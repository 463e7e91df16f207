"""What runs say. One way through: runs or anybody's CSV (``read``, ``results_file``) become one
table, that becomes cells (``cells``), these rows with verdicts (``verdicts``, ``statistics``,
``thresholds``),
and these words, tables, pictures (``figures`` and ``diagnosed``, on ``drawing``), an answer
``card`` and a page (``answer``). Beside them what only some runs have: a plan (``planned``),
earlier ``looks``, costs (``cost``, ``timing``), other statistics (``bn_evaluation``),
``published`` figures; and where they came from (``origin``). It writes no run and imports no
torch, but for timing."""
