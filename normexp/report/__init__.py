"""What runs say. One way through: runs or anybody's CSV (read, results_file) become one table, that
becomes cells (cells), these rows with verdicts (verdicts, statistics), and these words, tables,
pictures, an answer card and a page (words, tables, figures, card, page.html). It writes no run and
imports no torch, but for timing.
"""
