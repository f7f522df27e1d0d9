"""Measuring whole indexes."""
