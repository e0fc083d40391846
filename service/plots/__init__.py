"""Figures from mixtures and points, by matplotlib."""
