"""Bytes to point arrays and back, one file per format."""
