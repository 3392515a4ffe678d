"""`moe-np cost`: what a step of a published model costs on many devices."""

import argparse
import json

from moe_np.parallel import cost
from moe_np.parallel.cost import Machine, Work

GIGA = 1e9
TERA = 1e12


def add_arguments(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """Arguments of `moe-np cost`. The units are those in which machines are sold."""
    machine = Machine()
    models = "mixtral-8x7b, switch-base, ...: as in moe-np count"
    parser.add_argument("name", metavar="NAME", help=models)
    parser.add_argument("--devices", type=int, default=8, metavar="R", help="(default: 8)")
    parser.add_argument("--tokens", type=int, default=4096, metavar="N", help="per device and step")
    parser.add_argument("--inference", action="store_true", help="a forward pass alone, no Adam")
    units = {
        "flops": ("TFLOP/s that a device reaches", TERA),
        "memory_bandwidth": ("GB/s of a device's memory", GIGA),
        "bandwidth": ("GB/s between nodes, per device", GIGA),
        "local_bandwidth": ("GB/s within a node", GIGA),
        "alpha": ("microseconds per message", 1e-6),
    }
    for name, (text, unit) in units.items():
        default = getattr(machine, name) / unit
        option = "--" + name.replace("_", "-")
        help_text = f"{text} (default: {default:g})"
        parser.add_argument(option, type=float, default=default, metavar="X", help=help_text)
    node = f"devices per node (default: {machine.node})"
    parser.add_argument("--node", type=int, default=machine.node, metavar="M", help=node)
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(args: argparse.Namespace) -> None:
    """Print seconds per step, the share of messages and the memory per device, by parallelism."""
    machine = Machine(
        flops=TERA * args.flops,
        memory_bandwidth=GIGA * args.memory_bandwidth,
        bandwidth=GIGA * args.bandwidth,
        local_bandwidth=GIGA * args.local_bandwidth,
        node=args.node,
        alpha=1e-6 * args.alpha,
    )
    work = Work(args.tokens, not args.inference)
    plans = cost.plans(args.name, args.devices, machine, work)
    if args.json:
        rows = [{**plan._asdict(), "seconds": plan.seconds, "share": plan.share} for plan in plans]
        facts = {"name": args.name, "devices": args.devices}
        print(json.dumps({**facts, **work._asdict(), **machine._asdict(), "plans": rows}))
        return
    step = "forward pass" if args.inference else "training step"
    title = f"{args.name}, {args.devices} devices, {step} of {args.tokens:,} tokens per device"
    print(cost.table(plans, title=title))
    print("\nA model: nothing overlaps, messages do not collide, every device has the same load.")
