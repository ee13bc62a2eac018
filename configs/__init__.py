"""Hydra groups (YAML only): one file for each method, model, data set, recipe and table."""
