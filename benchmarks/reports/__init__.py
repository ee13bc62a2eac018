"""Verdicts and the Markdown report with its plots; reads cards, never trains."""
