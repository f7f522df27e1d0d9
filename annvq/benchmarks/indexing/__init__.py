"""Measuring whole indexes: :mod:`systems` are the libraries, :mod:`worker` is the process that holds one of them."""
