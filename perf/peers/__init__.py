"""The first peers on the same work in the same run; ``python -m perf.peers``, see README.md."""
