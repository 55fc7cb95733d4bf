"""Memories of segmented slices, and the rules that choose which of them a slice gets to see."""
