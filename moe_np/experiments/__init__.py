"""The experiments: the papers' tables and figures computed again, and questions of our own.

One folder each, with the names of `moe_np.experiments.common.experiment.Experiment` in its
`__init__`. A folder is found by walking (`common/registry.py`): to add an experiment is to add its
folder. `moe-np list` prints them, `moe-np run NAME` runs one.
"""
