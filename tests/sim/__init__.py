"""A whole cluster in one thread, its time and its misfortunes chosen by a seed."""
