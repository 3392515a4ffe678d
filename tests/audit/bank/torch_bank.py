"""Wrong routers and layers in PyTorch, at least one per erratum that applies."""

import torch
from torch import nn
from torch.nn import functional as F


def kept_weights(logits, k):
    values, indices = logits.topk(k, dim=-1)
    return values.softmax(dim=-1), indices


class Gate(nn.Module):
    """What the routers below share: one matrix."""

    def __init__(self, d_model, n_experts, k=2):
        super().__init__()
        self.k, self.n_experts = k, n_experts
        self.gate = nn.Linear(d_model, n_experts, bias=False)

    def forward(self, x):
        return kept_weights(self.gate(x), self.k)


class Noisy(Gate):
    """Noisy top-k gating with its expected load."""

    def __init__(self, d_model, n_experts, k=2):
        super().__init__(d_model, n_experts, k)
        self.noise = nn.Linear(d_model, n_experts, bias=False)

    def forward(self, x):
        clean = self.gate(x)
        sigma = F.softplus(self.noise(x))
        noise = torch.randn_like(clean) if self.training else torch.zeros_like(clean)
        noisy = clean + noise * sigma
        weights, indices = kept_weights(noisy, self.k)
        load = torch.distributions.Normal(0.0, 1.0).cdf((clean - self.threshold(noisy)) / sigma)
        return weights, indices, load.sum(dim=0)

    def threshold(self, noisy):
        ranked = noisy.sort(dim=-1, descending=True).values
        is_in = noisy > ranked[:, self.k, None]
        return torch.where(is_in, ranked[:, self.k, None], ranked[:, self.k - 1, None])


class LoadThatCountsItself(Noisy):
    def threshold(self, noisy):
        return noisy.sort(dim=-1, descending=True).values[:, self.k - 1, None]


class LoadOfDetachedThreshold(Noisy):
    def threshold(self, noisy):
        return super().threshold(noisy).detach()


class SoftmaxTwice(Gate):
    def forward(self, x):
        return kept_weights(self.gate(x).softmax(dim=-1), self.k)


class MaskedWithZero(Gate):
    def forward(self, x):
        logits = self.gate(x)
        mask = torch.zeros_like(logits).scatter(1, logits.topk(self.k).indices, 1.0)
        return (logits * mask).softmax(dim=-1)


class DetachedDenominator(Gate):
    """Renormalised, but the sum is detached: unselected logits get a gradient."""

    def forward(self, x):
        weights, indices = self.gate(x).softmax(dim=-1).topk(self.k)
        return weights / weights.sum(dim=-1, keepdim=True).detach(), indices


class OneRenormalised(nn.Module):
    def __init__(self, d_model, n_experts, k=1):
        super().__init__()
        self.gate = nn.Linear(d_model, n_experts, bias=False)

    def forward(self, x):
        weights, indices = self.gate(x).softmax(dim=-1).topk(1)
        return weights / weights.sum(dim=-1, keepdim=True), indices


class OneRenormalisedWithEpsilon(OneRenormalised):
    def forward(self, x):
        weights, indices = self.gate(x).softmax(dim=-1).topk(1)
        return weights / (weights.sum(dim=-1, keepdim=True) + 1e-6), indices


class LayerOfOneRenormalised(nn.Module):
    """A whole layer: only its output is seen."""

    def __init__(self, d_model, n_experts):
        super().__init__()
        self.gate = nn.Linear(d_model, n_experts, bias=False)
        self.experts = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(n_experts))

    def forward(self, x):
        weights, indices = self.gate(x).softmax(dim=-1).max(dim=-1)
        weights = weights / weights
        outputs = torch.stack([net(x) for net in self.experts], dim=1)
        return weights[:, None] * outputs[torch.arange(len(x)), indices]


class WithLoss(Gate):
    def forward(self, x):
        logits = self.gate(x)
        weights, indices = kept_weights(logits, self.k)
        gates = torch.zeros_like(logits).scatter(1, indices, weights)
        return weights, indices, self.loss(logits, gates)


class ImportanceOfASample(WithLoss):
    """torch.var divides by n − 1."""

    def loss(self, logits, gates):
        importance = gates.sum(dim=0)
        return importance.var() / importance.mean() ** 2


class ImportanceByStandardDeviation(WithLoss):
    def loss(self, logits, gates):
        importance = gates.sum(dim=0)
        return importance.std(correction=0) / importance.mean()


class SwitchOfSelectedWeights(WithLoss):
    def loss(self, logits, gates):
        f = (gates > 0).double().mean(dim=0) / self.k
        return self.n_experts * (f * gates.mean(dim=0)).sum()


class SwitchDetached(WithLoss):
    """The value is right, and nothing is balanced."""

    def loss(self, logits, gates):
        f = (gates > 0).double().mean(dim=0) / self.k
        return self.n_experts * (f * logits.softmax(dim=-1).mean(dim=0).detach()).sum()


class ZLossOfProbabilities(WithLoss):
    def loss(self, logits, gates):
        return logits.softmax(dim=-1).logsumexp(dim=-1).square().mean()


class ZLossOfTheMean(WithLoss):
    def loss(self, logits, gates):
        return logits.logsumexp(dim=-1).mean() ** 2


class Limited(nn.Module):
    """A layer with one expert per token and a capacity."""

    def __init__(self, d_model, n_experts, capacity_factor=1.0):
        super().__init__()
        self.factor, self.n_experts = capacity_factor, n_experts
        self.gate = nn.Linear(d_model, n_experts, bias=False)
        self.experts = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(n_experts))

    def capacity(self, n_tokens):
        return -int(-self.factor * n_tokens // self.n_experts)

    def count(self, onehot):
        return (onehot.cumsum(dim=0) * onehot).sum(dim=-1)

    def dropped(self, x, weights):
        return torch.zeros_like(x)

    def forward(self, x):
        weights, indices = self.gate(x).softmax(dim=-1).max(dim=-1)
        onehot = F.one_hot(indices, self.n_experts)
        kept = self.count(onehot) <= self.capacity(len(x))
        outputs = torch.stack([net(x) for net in self.experts], dim=1)
        y = weights[:, None] * outputs[torch.arange(len(x)), indices]
        return torch.where(kept[:, None], y, self.dropped(x, weights))


class DroppedAreCopied(Limited):
    def dropped(self, x, weights):
        return x * weights[:, None]


class CapacityRoundedDown(Limited):
    def capacity(self, n_tokens):
        return int(self.factor * n_tokens / self.n_experts)


class CapacityAlongTheExperts(Limited):
    def count(self, onehot):
        return (onehot.cumsum(dim=-1) * onehot).sum(dim=-1)


class NoiseInEvaluation(Gate):
    def forward(self, x):
        logits = self.gate(x)
        return kept_weights(logits + 0.1 * torch.randn_like(logits), self.k)


class ThresholdTakesTies(Gate):
    def forward(self, x):
        logits = self.gate(x)
        kth = logits.topk(self.k).values[:, -1:]
        return logits.masked_fill(logits < kth, -torch.inf).softmax(dim=-1)


class LosesDuplicates(nn.Module):
    """index_put_ without accumulate keeps one of the rows of a token."""

    def __init__(self, d_model, n_experts, k=2):
        super().__init__()
        self.k = k
        self.gate = nn.Linear(d_model, n_experts, bias=False)
        self.experts = nn.ModuleList(nn.Linear(d_model, d_model) for _ in range(n_experts))

    def forward(self, x):
        weights, indices = kept_weights(self.gate(x), self.k)
        outputs = torch.stack([net(x) for net in self.experts], dim=1)
        out = torch.zeros_like(x)
        for choice in range(self.k):
            rows = torch.arange(len(x))
            y = weights[:, choice, None] * outputs[rows, indices[:, choice]]
            out = out.index_put((rows,), y)
        return out


class SoftmaxOverTheBatch(Gate):
    def forward(self, x):
        return self.gate(x).softmax(dim=0)


class StoredLoss(Gate):
    def forward(self, x):
        logits = self.gate(x)
        self.aux_loss = logits.logsumexp(dim=-1).square().mean()
        return kept_weights(logits, self.k)


class BiasInTheWeights(Gate):
    def __init__(self, d_model, n_experts, k=2):
        super().__init__(d_model, n_experts, k)
        self.register_buffer("selection_bias", torch.zeros(n_experts))

    def forward(self, x):
        weights, indices = (self.gate(x).sigmoid() + self.selection_bias).topk(self.k)
        return weights / weights.sum(dim=-1, keepdim=True), indices


def masks_become_nan(logits, k=2):
    """−∞ times 0 is NaN."""
    mask = torch.zeros_like(logits).scatter(1, logits.topk(k).indices, 1.0)
    return (logits * mask).masked_fill(mask == 0, -torch.inf).softmax(dim=-1) + 0 * logits


class JitterInPlace(Limited):
    def forward(self, x):
        if self.training:
            x *= torch.empty_like(x).uniform_(0.9, 1.1)
        weights, indices = self.gate(x).softmax(dim=-1).max(dim=-1)
        outputs = torch.stack([net(x) for net in self.experts], dim=1)
        return weights[:, None] * outputs[torch.arange(len(x)), indices]


class JitterReachesTheExperts(JitterInPlace):
    """The caller's tensor stays as it is; the experts see the noise."""

    def forward(self, x):
        return super().forward(x.clone())


class GateWithoutGradient(Gate):
    def forward(self, x):
        with torch.no_grad():
            return kept_weights(self.gate(x), self.k)


# --- right ones in other forms --------------------------------------------------------------------


class CombineTensor(Gate):
    """Loss, combine tensor (N, E, C) and its mask, two choices with capacity, as GShard has it."""

    def __init__(self, d_model, n_experts, capacity_factor=1.0):
        super().__init__(d_model, n_experts)
        self.factor = capacity_factor

    def forward(self, x):
        logits = self.gate(x)
        weights, indices = kept_weights(logits, 2)
        choices = F.one_hot(indices, self.n_experts)
        C = max(1, -int(-self.factor * 2 * len(x) // self.n_experts))
        first, second = choices[:, 0], choices[:, 1]
        places = torch.stack([first.cumsum(0), second.cumsum(0) + first.sum(0)], dim=1) * choices
        slots = F.one_hot(places, max(C, int(places.max()) if len(x) else 0) + 1)[..., 1 : C + 1]
        combine = (weights[:, :, None, None] * slots).sum(dim=1)
        share = first.double().mean(dim=0)
        loss = self.n_experts * (share * logits.softmax(dim=-1).mean(dim=0)).sum()
        return loss, combine, combine > 0


class Sequences(nn.Module):
    """A layer of (B, T, D) that gives its output and its logits, expert by expert."""

    def __init__(self, hidden_size, num_experts, top_k=2):
        super().__init__()
        self.top_k = top_k
        self.router = nn.Linear(hidden_size, num_experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden_size, 16), nn.SiLU(), nn.Linear(16, hidden_size))
            for _ in range(num_experts)
        )

    def forward(self, hidden_states):
        B, T, D = hidden_states.shape
        x = hidden_states.reshape(B * T, D)
        logits = self.router(x)
        weights, indices = kept_weights(logits, self.top_k)
        y = torch.zeros_like(x)
        for m, net in enumerate(self.experts):
            token, choice = torch.where(indices == m)
            y = y.index_add(0, token, net(x[token]) * weights[token, choice, None])
        return y.reshape(B, T, D), logits


class ScaledSigmoids(nn.Module):
    """Sigmoid scores, a bias in the selection, a factor of the weights."""

    def __init__(self, dim, n_routed_experts, n_activated=2, scale=2.5):
        super().__init__()
        self.k, self.scale = n_activated, scale
        self.weight = nn.Parameter(torch.randn(n_routed_experts, dim))
        self.register_buffer("correction_bias", torch.zeros(n_routed_experts))

    def forward(self, x):
        scores = (x @ self.weight.T).sigmoid()
        indices = (scores + self.correction_bias).topk(self.k).indices
        weights = scores.gather(1, indices)
        return self.scale * weights / (weights.sum(dim=-1, keepdim=True) + 1e-20), indices


WRONG = {  # name -> erratum, None where there is none
    "LoadThatCountsItself": 1,
    "LoadOfDetachedThreshold": 2,
    "SoftmaxTwice": 3,
    "MaskedWithZero": 3,
    "DetachedDenominator": 3,
    "OneRenormalised": 4,
    "OneRenormalisedWithEpsilon": 4,
    "LayerOfOneRenormalised": 4,
    "ImportanceOfASample": 5,
    "ImportanceByStandardDeviation": 5,
    "SwitchOfSelectedWeights": 6,
    "SwitchDetached": 6,
    "ZLossOfProbabilities": 7,
    "ZLossOfTheMean": 7,
    "DroppedAreCopied": 8,
    "CapacityRoundedDown": 9,
    "NoiseInEvaluation": 10,
    "ThresholdTakesTies": 11,
    "LosesDuplicates": 12,
    "SoftmaxOverTheBatch": 13,
    "StoredLoss": 17,
    "BiasInTheWeights": 19,
    "masks_become_nan": 20,
    "JitterInPlace": 32,
    "JitterReachesTheExperts": 32,
    "CapacityAlongTheExperts": 32,
    "GateWithoutGradient": None,
}
RIGHT = ("Gate", "Noisy", "Limited", "CombineTensor", "Sequences", "ScaledSigmoids")
