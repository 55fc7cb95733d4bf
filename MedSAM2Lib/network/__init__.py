"""The network, one part per file; attribute names equal the published checkpoints' key names."""
