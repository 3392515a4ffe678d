"""Models in use on one machine: experts on disk, fewer bits per weight, many requests at a time.

cache_policies   which expert gives way: LRU, LFU, and Belady's bound on a recorded trace
preadv_reader    a parameter of an expert from its file, into a buffer that is used again
offload          a cache of experts per layer in front of the experts on disk
quantise         experts in 8, 4, 3 or 2 bits per weight
requests         prompts with arrival times, Poisson and in bursts; latencies
batching         continuous batching: sequences of different lengths in one batch
memory           sizes as text, and the resident memory of this process
cli              `moe-np generate FOLDER --memory 64MB`
"""
