"""Many cases in one go: the table of them, what is finished, and who works on the rest. Knows nothing of networks."""
