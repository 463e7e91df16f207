"""`normexp.compare`: tunes each variant, adds seeds until it is decided, and stays within a time.

settings   what a comparison is asked for
cells      what is compared with what
tuning     a learning rate for each cell, by seeds that do not report
looks      the planned looks at the table, and what they decide
budget     what a seed takes, and what fits a time
stage      jobs of one step of it, through Hydra's launcher
driver     the way through: tune, look, decide
start      a command line, checked
view       what a person sees of it
"""
