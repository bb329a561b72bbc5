"""Simulated markets: they serve the demo, the tests and the exam. Seeded, hence repeatable."""
