"""A rank of torch.distributed with gloo: `python gloo_rank.py RANK RANKS FILE RESULT.npz`.

It computes a step of the expert-parallel layer twice: as it is usually written in PyTorch, with
autograd through all_to_all_single; and by the generators of `moe_np.parallel`, whose exchanges are
all_to_all_single here.
"""

import sys

import numpy as np
import torch
import torch.distributed as dist

from moe_np.parallel import layer_step
from moe_np.parallel.exchanges import Send, shares

SIZES = {"tokens": 37, "d_model": 6, "experts": 5, "hidden": 7, "k": 3, "skew": 0.7}


def problem(ranks):
    """One piece of the tokens per rank."""
    return layer_step.problem(layer_step.Sizes(**SIZES, pieces=ranks), seed=3)


def exchange(x, send, receive):
    """all_to_all_single of rows: `send` and `receive` rows per rank."""
    out = x.new_empty((sum(receive), *x.shape[1:]))
    dist.all_to_all_single(out, x.contiguous(), receive, send)
    return out


class AllToAll(torch.autograd.Function):
    """Rows to other ranks; the gradients go the way back."""

    @staticmethod
    def forward(ctx, x, send, receive):
        ctx.counts = (send, receive)
        return exchange(x, send, receive)

    @staticmethod
    def backward(ctx, dout):
        send, receive = ctx.counts
        return exchange(dout, receive, send), None, None


def torch_layer(x, router, experts, bounds, k):
    """The usual layer: softmax over the k largest logits, counts, dispatch, experts, combine.

    x (N, D) of this rank, experts {name: (E of this rank, ...)}, bounds of the experts of all ranks
    """
    logits = x @ router
    values, chosen = torch.topk(logits, k, dim=1)
    weight = torch.softmax(values, dim=1).flatten()
    order = torch.argsort(chosen.flatten(), stable=True)
    token = order // k
    counts = torch.bincount(chosen.flatten(), minlength=bounds[-1])
    per_rank = np.diff(bounds).tolist()
    here = len(experts["w1"])
    arriving = exchange(counts, per_rank, [here] * len(per_rank)).reshape(-1, here)
    send = [int(part.sum()) for part in torch.split(counts, per_rank)]
    receive = arriving.sum(dim=1).tolist()
    rows = AllToAll.apply(x[token], send, receive)
    its_expert = torch.arange(here).repeat(len(per_rank)).repeat_interleave(arriving.flatten())
    y = torch.zeros_like(rows)
    for e in range(here):
        mine = torch.nonzero(its_expert == e).flatten()
        h = rows[mine]
        gated = torch.nn.functional.silu(h @ experts["w1"][e]) * (h @ experts["w3"][e])
        y = y.index_add(0, mine, gated @ experts["w2"][e])
    back = AllToAll.apply(y, receive, send)
    return torch.zeros_like(x).index_add(0, token, weight[order][:, None] * back)


def by_autograd(given, rank, ranks):
    """out, dx, the gradients of this rank's experts, and the sum of the router's."""
    tokens = shares(len(given.x), ranks)[rank : rank + 2]
    bounds = shares(given.sizes.experts, ranks)
    here = slice(bounds[rank], bounds[rank + 1])
    x = torch.tensor(given.x[slice(*tokens)], requires_grad=True)
    router = torch.tensor(given.router["w"], requires_grad=True)
    experts = {n: torch.tensor(p[here], requires_grad=True) for n, p in given.params.items()}
    out = torch_layer(x, router, experts, bounds, given.sizes.k)
    out.backward(torch.tensor(given.dout[slice(*tokens)]))
    dist.all_reduce(router.grad)
    grads = {f"experts.{name}": p.grad for name, p in experts.items()}
    return {"out": out.detach(), "dx": x.grad, **grads, "router.w": router.grad}


def run(generator):
    """`moe_np.parallel.mpi.run`, with gloo."""
    answer = None
    while True:
        try:
            request = generator.send(answer)
        except StopIteration as stop:
            return stop.value
        if isinstance(request, Send):
            rows = torch.from_numpy(np.ascontiguousarray(request.rows))
            counts = (request.counts.tolist(), request.expected.tolist())
            answer = exchange(rows, *map(list, counts)).numpy()
        else:
            answer = [None] * dist.get_world_size()
            dist.all_gather_object(answer, request.array)


def main(rank, ranks, file, result):
    """Write what this rank computes, both ways."""
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=ranks)
    torch.set_num_threads(1)
    given = problem(ranks)
    arrays = {f"torch {n}": t.numpy() for n, t in by_autograd(given, rank, ranks).items()}
    of_rank = layer_step.arrays(run(layer_step.on_a_rank(given, rank, ranks)))
    np.savez(result, **arrays, **{f"gloo {name}": a for name, a in of_rank.items()})
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
