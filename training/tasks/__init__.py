"""Generators of single turns and of whole sessions, one module per ability."""
