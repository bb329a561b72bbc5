"""What is spoken to integrators: the aiohttp application over a replica that reads locally.

``import gateway.app`` imports neither jax nor ray, and a price read asks nobody: it is a dictionary
lookup and a write of ready bytes.
"""
