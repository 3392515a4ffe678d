"""Data: the vowels of Peterson and Barney, shipped as a table; the clusters of Chen et al. 2022,
drawn.

Fresh clusters come from `moe_np.data.clusters.clusters`, which shares its name with its module.
"""

from moe_np.data.clusters import Clusters, notebook_clusters
from moe_np.data.speech.vowels import peterson_barney, vowel_task

__all__ = ["Clusters", "notebook_clusters", "peterson_barney", "vowel_task"]
