"""Data sets: real ones are shipped as tables, synthetic ones are drawn from a Generator.

    speech.vowels       two formants of four vowels, Peterson and Barney 1952 (Jacobs et al. 1991)
    speech.ten_vowels   the same table with all ten vowels (Nowlan and Hinton 1991)
    arm                 a surrogate of the robot arm of Jordan and Jacobs 1994
    clusters            the clusters of Chen et al. 2022, fresh or those of the authors' notebooks
    inverse             one question with several answers (Bishop 2006)
    piecewise           a regression of four straight lines
    regimes             regression with and without clusters
    shipped_text        texts that are shipped compressed, held against their hashes
    text                two Bibles verse by verse, and tokenisers
    music               Bach's chorales as grids of pitches
    torch_random        PyTorch's random numbers without PyTorch

Fresh clusters come from `moe_np.data.clusters.clusters`; `moe_np.data.clusters` is the module.
"""

from moe_np.data.clusters import Clusters, notebook_clusters
from moe_np.data.speech.vowels import peterson_barney, vowel_task

__all__ = ["Clusters", "notebook_clusters", "peterson_barney", "vowel_task"]
