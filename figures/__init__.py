"""One script per paper figure or table. `python -m figures` makes them all; see
figures/__main__.py.
"""
