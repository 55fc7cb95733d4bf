"""Scores of a model on labelled cases, beside baselines that make a number mean something."""
