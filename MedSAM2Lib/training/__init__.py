"""Synthetic and real clips, losses, and the loop that trains nano."""
