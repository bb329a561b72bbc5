"""What is claimed, measured: each module is a command that ends with one line of JSON."""
