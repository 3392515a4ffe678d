"""What a step costs on many devices: the α-β model of messages, and the roofline of the rest.

    all-to-all         T = α·messages + (1 − m/R)·bytes/β              bytes that a device sends
    ring all-reduce    T = 2(R − 1)α + 2(1 − 1/R)·bytes/β              Thakur et al. 2005
    computing          T = operations/F                                2 per multiply-add; 3 times
                                                                       as many with a backward pass
    reading weights    T = touched·bytes of an expert/B
    experts touched    E(1 − (1 − k/E)^N)                              N tokens, k of E at random
    roofline           T = max(computing, reading)

    here        meaning
    R, m        devices, and devices per node, which have a faster network of their own
    α, β        seconds per message, bytes per second between nodes
    F, B        operations and bytes of memory per second of a device

**One number for a layer.** Of an expert-parallel training step, messages over computing are

    4·bytes·F / (6·matrices·H·β)

for the bytes of a number: tokens, d and k cancel. Only the experts' hidden units H, the machine and
the wire remain, so many small experts cost more communication than few large ones (`wire_share`).

This is a model, not a measurement: messages do not collide, nothing overlaps unless it is said, and
every device has the same load. `moe-np run published_systems` sets it beside published numbers.
"""

from collections.abc import Sequence
from typing import NamedTuple

from moe_np import accounting
from moe_np.accounting import Transformer
from moe_np.base import checks
from moe_np.base.checks import InputError

BACKWARD = 3  # a training step has three times the operations of a forward pass


class Machine(NamedTuple):
    """Devices and their networks. The defaults are those of an A100 with 25 GB/s between nodes."""

    flops: float = 125e12  # operations per second that are reached, F
    memory_bandwidth: float = 1.5e12  # bytes per second, B
    bandwidth: float = 25e9  # bytes per second between nodes, per device, β
    local_bandwidth: float = 300e9  # within a node
    node: int = 8  # devices per node, m
    alpha: float = 5e-6  # seconds per message, α


def check_machine(machine: Machine) -> Machine:
    """Raise InputError for a value that no machine has."""
    for name in ("flops", "memory_bandwidth", "bandwidth", "local_bandwidth"):
        checks.number(name, getattr(machine, name), greater_than=0)
    checks.integer("node", machine.node, minimum=1)
    checks.number("alpha", machine.alpha, minimum=0)
    return machine


# --- messages -------------------------------------------------------------------------------------


def all_to_all(n_bytes: float, ranks: int, machine: Machine, messages: int | None = None) -> float:
    """Seconds in which each rank sends n_bytes, in equal parts, to all ranks.

    messages   that a rank sends between nodes; None: one to each rank of other nodes

    The messages within the nodes have a network of their own and go at the same time.
    """
    here = min(machine.node, ranks)
    if messages is None:
        messages = ranks - here if ranks > here else ranks - 1
    between = (1 - here / ranks) * n_bytes / machine.bandwidth
    within = (here - 1) / ranks * n_bytes / machine.local_bandwidth
    return machine.alpha * messages + max(between, within)


def two_level_all_to_all(n_bytes: float, ranks: int, machine: Machine) -> float:
    """The same in two steps (`moe_np.parallel.two_level`): within the nodes, then R/m − 1 messages
    between them. Raises InputError where the nodes do not divide the ranks.
    """
    if ranks % machine.node:
        raise InputError(f"ranks: wanted a multiple of {machine.node}, of a node, got {ranks}")
    m = machine.node
    within = machine.alpha * (m - 1) + (1 - 1 / m) * n_bytes / machine.local_bandwidth
    nodes = ranks // m
    return within + machine.alpha * (nodes - 1) + (1 - 1 / nodes) * n_bytes / machine.bandwidth


def all_reduce(n_bytes: float, ranks: int, machine: Machine) -> float:
    """Seconds of a ring in which every rank gets the sum of n_bytes of all ranks."""
    beta = machine.bandwidth if ranks > machine.node else machine.local_bandwidth
    return 2 * (ranks - 1) * machine.alpha + 2 * (1 - 1 / ranks) * n_bytes / beta


def wire_share(
    hidden: int, machine: Machine, *, matrices: int = 3, number: int = 2, between: bool = True
) -> float:
    """Messages over computing of an expert-parallel training step of the layer, without α.

    number    bytes of a number that travels
    between   whether the rows go between nodes; else within one
    """
    beta = machine.bandwidth if between else machine.local_bandwidth
    return 4 * number * machine.flops / (2 * BACKWARD * matrices * hidden * beta)


# --- one device -----------------------------------------------------------------------------------


def touched(n_experts: int, k: int, tokens: float) -> float:
    """The expected number of experts that N tokens use, each k of E at random: E(1 − (1 − k/E)^N).

    It is between k and E. For independent choices without repetition within a token it is exact.
    """
    checks.integer("k", k, minimum=1, maximum=checks.integer("n_experts", n_experts, minimum=1))
    return n_experts * (1 - (1 - k / n_experts) ** checks.number("tokens", tokens, minimum=0))


def roofline(operations: float, n_bytes: float, machine: Machine) -> float:
    """Seconds of a computation that reads n_bytes of weights: the longer of the two."""
    return max(operations / machine.flops, n_bytes / machine.memory_bandwidth)


# --- whole models ---------------------------------------------------------------------------------


class Plan(NamedTuple):
    """One way to divide a model among devices: seconds of a step and bytes of a device."""

    name: str
    computing: float
    messages: float
    memory: float

    @property
    def seconds(self) -> float:
        """Of a step, without any overlap."""
        return self.computing + self.messages

    @property
    def share(self) -> float:
        """The share of a step that messages are."""
        return self.messages / self.seconds if self.seconds else 0.0


class Work(NamedTuple):
    """What a step does."""

    tokens: int = 4096  # per device
    training: bool = True
    number: int = 2  # bytes of a number that travels or is read

    @property
    def of_parameter(self) -> int:
        """Bytes in memory per parameter: with Adam, or the number alone."""
        return accounting.ADAM if self.training else self.number


def plans(
    model: str | Transformer, devices: int, machine: Machine, work: Work | None = None
) -> list[Plan]:
    """A step of a model with experts by data, tensor and expert parallelism.

    data     every device has the whole model; gradients are summed over all devices
    tensor   every matrix is divided among all devices; activations are summed twice per layer, and
             twice in the backward pass
    expert   every device has E/R of the experts and all the rest; devices beyond E are replicas

    Every device brings work.tokens tokens. Raises InputError for a model without experts, a number
    of devices that neither divides E nor is a multiple of it, and sizes that are not positive.
    """
    work = Work() if work is None else work
    check_machine(machine)
    devices = checks.integer("devices", devices, minimum=1)
    checks.integer("tokens", work.tokens, minimum=1)
    architecture = accounting.MODELS.get(model) if isinstance(model, str) else model
    counts = accounting.count(model)
    if not isinstance(architecture, Transformer) or not architecture.moe_layers:
        raise InputError(f"model: wanted a Transformer with experts, got {checks.text(model)}")
    E = architecture.experts
    if E % devices and devices % E:
        raise InputError(f"devices: wanted a divisor or a multiple of {E} experts, got {devices}")
    job = _Job(architecture, counts, devices, machine, work)
    return [_data(job), _tensor(job), _expert(job)]


class _Job(NamedTuple):
    architecture: Transformer
    counts: accounting.Counts
    devices: int
    machine: Machine
    work: Work

    @property
    def operations(self) -> int:
        """Of a device's tokens."""
        passes = BACKWARD if self.work.training else 1
        return 2 * self.counts.operations * self.work.tokens * passes

    @property
    def experts(self) -> int:
        """Parameters of all routed experts."""
        return self.counts.parts["experts"].total

    @property
    def rest(self) -> int:
        """All other parameters."""
        return self.counts.total - self.experts

    def read(self, tokens: int) -> float:
        """Parameters that these tokens make one read: the rest, and the experts they touch."""
        E = self.architecture.experts
        return self.rest + self.experts * touched(E, self.architecture.k, tokens) / E


def _data(job):
    work = job.work
    read = job.read(work.tokens) * work.number
    computing = roofline(job.operations, read, job.machine)
    messages = 0.0
    if work.training:
        messages = all_reduce(job.counts.total * work.number, job.devices, job.machine)
    return Plan("data", computing, messages, job.counts.total * work.of_parameter)


def _tensor(job):
    work = job.work
    tokens = work.tokens * job.devices  # all devices work on all tokens
    read = job.read(tokens) * work.number / job.devices
    computing = roofline(job.operations, read, job.machine)
    layers = job.architecture.decoder_layers + job.architecture.encoder_layers
    sums = layers + job.architecture.attentions  # one after each attention and feed-forward layer
    sums *= 2 if work.training else 1
    n_bytes = tokens * job.architecture.d_model * work.number
    messages = sums * all_reduce(n_bytes, job.devices, job.machine)
    return Plan("tensor", computing, messages, job.counts.total * work.of_parameter / job.devices)


def _expert(job):
    work, architecture, devices = job.work, job.architecture, job.devices
    group = min(architecture.experts, devices)  # devices among which the experts are divided
    of_group = (
        job.experts
        / group
        * touched(architecture.experts, architecture.k, work.tokens * group)
        / architecture.experts
    )
    computing = roofline(job.operations, (job.rest + of_group) * work.number, job.machine)
    n_bytes = work.tokens * architecture.k * architecture.d_model * work.number
    exchanges = architecture.moe_layers * (4 if work.training else 2)
    messages = exchanges * all_to_all(n_bytes, group, job.machine)
    if work.training:
        messages += all_reduce(job.rest * work.number, devices, job.machine)
        replicas = devices // group
        messages += all_reduce(job.experts / group * work.number, replicas, _between(job.machine))
    memory = (job.rest + job.experts / group) * work.of_parameter
    return Plan("expert", computing, messages, memory)


def _between(machine):
    """For a ring whose devices are on different nodes."""
    return machine._replace(node=1)


def table(plans: Sequence[Plan], *, title: str = "") -> str:
    """Plans as Markdown."""
    lines = [f"# {title}", ""] if title else []
    lines += ["| parallelism | step s | computing s | messages s | share | memory per device GB |"]
    lines += ["|---|--:|--:|--:|--:|--:|"]
    for plan in plans:
        lines.append(
            f"| {plan.name} | {plan.seconds:.3g} | {plan.computing:.3g} | {plan.messages:.3g} | "
            f"{plan.share:.0%} | {plan.memory / 1e9:,.1f} |"
        )
    return "\n".join(lines)
