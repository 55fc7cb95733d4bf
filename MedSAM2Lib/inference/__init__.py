"""From prompts on a slice to masks on every slice."""
