"""The verbs of ``repricer``, a file for each group that belongs together."""
