"""What verdicts go by; here, so that command lines are read without scipy."""

LEAST_SEEDS = 6
"""Below, no verdict: of five differences all have one sign by chance in one of sixteen tables."""
LEVEL = 0.05
CONFIDENCE = 0.95
MARGIN = 0.005
"""Differences of accuracy within it count as none: half a percentage point."""
