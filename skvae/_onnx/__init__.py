"""Graphs of models, written node by node."""
