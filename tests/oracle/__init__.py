"""Judges that do not know the engine: standard library, numpy and pyarrow only."""
