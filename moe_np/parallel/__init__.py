"""Expert parallelism: the sparse layer over several ranks, each of which has some of the experts.

exchanges         what ranks ask of each other, and how tokens and experts are divided
expert_parallel   the sparse layer over ranks, forward and backward, as generators
placement         which rank has which expert: contiguous, packed by load, with replicas
groups            which tokens are routed together: of a piece, a rank, the batch
balance_in_groups load-balancing losses over such groups
dropped           what a capacity drops of the same tokens on more ranks
two_level         each exchange in two steps, within the nodes and between them
agreement         a hash that tells ranks with different parameters
cost              what a step costs on many devices, by a model: `moe-np cost`
decoder_parallel  the decoder: experts over ranks, all else data-parallel, in pieces of a batch
decoder_mixture   the experts of one of its layers
data_parallel     of other models: every rank has the whole, and some pieces of a batch
training_over_ranks  training: the same parameters on any number of ranks
in_process        all ranks in this process, one exchange at a time
mpi               one rank per process, by MPI; errors end all ranks with the same message
launch            find an MPI, start the ranks, and end them when one is gone or late
progress          where each rank stands, for its launcher
failed_rank       which rank failed, where it cannot say so itself
layer_step        a step of router and layer over ranks, and in one process: `moe-np parallel`

A rank is a generator. It yields each exchange and is sent what came from the others:

    arrived = yield Send(rows, counts, expected, "dispatch")

So one source runs in one process, under MPI, and step by step in a lesson. The names:

    here                 MPI                        PyTorch (torch.distributed)
    Send                 Alltoallv                  all_to_all_single with splits
    Gather               Allgatherv                 all_gather
    rank, ranks          rank, size                 rank, world_size
"""
