"""Whole models: the patch networks of Chen et al. 2022 with their training, and an associative
memory with any router.
"""
