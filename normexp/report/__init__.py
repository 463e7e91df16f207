"""From a directory of runs to a table, pictures and sentences; knows run directories only."""
