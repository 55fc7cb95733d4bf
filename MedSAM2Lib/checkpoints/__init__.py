"""Which models exist, where their weights are, and how weights become a network."""
