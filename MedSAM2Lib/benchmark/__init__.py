"""Speed and memory, beside Meta's implementation on the same weights, volume, prompts and threads."""
