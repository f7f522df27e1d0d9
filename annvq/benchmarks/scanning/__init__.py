"""Timing scans of annvq and FAISS against one another, each engine in a process of its own.

:mod:`codes` makes the codes that both scan, :mod:`pairs` asks two workers in turn.
"""
