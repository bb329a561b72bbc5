"""The exam: the production shard in simulated markets and on real data, with all its failures."""
