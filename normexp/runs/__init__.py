"""What is kept of runs: the plan of a sweep."""
