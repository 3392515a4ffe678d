"""A surrogate for the robot arm of Jordan and Jacobs (1994): four joints in three dimensions.

The task there: from 4 joint angles, 4 velocities and 4 torques predict the 4 accelerations. The
arm's equations, masses and ranges are not in the paper. This is another arm of the same kind, a
surrogate: numbers made with it can be set beside the published ones but do not reproduce them. Its
ranges were chosen so that the best linear map leaves .31 of the variance, as published; that row of
a table is therefore no evidence.

    M(q) q̈ + c(q, q̇) = τ      c: the torque at q̈ = 0, against weight and the forces of motion

    here     shape      meaning
    q        (N, 4)     joint angles, rad
    dq       (N, 4)     velocities, rad/s
    ddq      (N, 4)     accelerations, rad/s²
    torque   (N, 4)     N m

`inverse_dynamics` is the recursive Newton-Euler algorithm (Luh, Walker and Paul 1980; Craig 1986,
chapter 6): from the base outward for velocities and accelerations of each link, back inward for
forces. It is linear in q̈, so its values for unit accelerations and for no acceleration give M and
c. Every function takes N arms at once.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np

from moe_np.base.checks import InputError, array, generator, integer
from moe_np.base.types import Array, ArrayN, ArrayND, Rng

GRAVITY = 9.81  # m/s², down along z

ArrayNJ = Annotated[np.ndarray, "N, joints"]
ArrayN3 = Annotated[np.ndarray, "N, 3"]
Vector = tuple[float, float, float]


class Link(NamedTuple):
    """One link, in a frame that turns with it. Its joint is at the origin."""

    axis: Vector  # of the joint, unit vector; the same in the frame before
    place: Vector  # of the joint in the frame before, m
    mass: float  # kg
    centre: Vector  # of mass, m
    inertia: Vector  # about the centre, along the three axes, kg m²


Arm = tuple[Link, ...]


def _rod(mass, length, radius):
    """Inertia of a solid cylinder along x."""
    across = mass * (length**2 / 12 + radius**2 / 4)
    return mass * radius**2 / 2, across, across


# a turning column, an upper arm and a forearm that pitch, a hand that swings sideways
ARM = (
    Link((0, 0, 1), (0, 0, 0), 4.0, (0, 0, 0), (0.02, 0.02, 0.03)),
    Link((0, 1, 0), (0, 0, 0), 2.0, (0.15, 0, 0), _rod(2.0, 0.3, 0.04)),
    Link((0, 1, 0), (0.3, 0, 0), 1.5, (0.125, 0, 0), _rod(1.5, 0.25, 0.03)),
    Link((0, 0, 1), (0.25, 0, 0), 1.0, (0.1, 0, 0), _rod(1.0, 0.2, 0.03)),
)
JOINTS = len(ARM)

# --- Mechanics ------------------------------------------------------------------------------------


def rotation(axis: Vector, angle: ArrayN) -> Annotated[np.ndarray, "N, 3, 3"]:
    """I + sin θ K + (1 − cos θ) K², K v = axis × v (Rodrigues).

    R v is the vector v of the turned frame, in the frame before.
    """
    x, y, z = axis
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=float)
    sin = np.sin(angle)[:, None, None]
    cos = np.cos(angle)[:, None, None]
    return np.eye(3) + sin * K + (1 - cos) * (K @ K)


def cross(a: Array, b: Array) -> Array:
    """a × b along the last axis of length 3. np.cross is the same, but too slow here."""
    a = np.asarray(a)
    b = np.asarray(b)
    return a[..., [1, 2, 0]] * b[..., [2, 0, 1]] - a[..., [2, 0, 1]] * b[..., [1, 2, 0]]


def _into(R, v):
    """Rᵀ v: from the frame before into the frame of the link."""
    return np.einsum("nji,nj->ni", R, v)


def _out(R, v):
    """R v: from the frame of the link into the frame before."""
    return np.einsum("nij,nj->ni", R, v)


def inverse_dynamics(
    q: ArrayNJ, dq: ArrayNJ, ddq: ArrayNJ, *, gravity: float = GRAVITY, arm: Arm = ARM
) -> ArrayNJ:
    """The torques under which the arm moves with q, dq, ddq. Raises InputError for other shapes."""
    q = array("q", q, ("N", len(arm)))
    dq = array("dq", dq, q.shape)
    ddq = array("ddq", ddq, q.shape)
    rotations = [rotation(link.axis, q[:, i]) for i, link in enumerate(arm)]
    forces, moments = _outward(rotations, dq, ddq, gravity, arm)
    return _inward(rotations, forces, moments, arm)


def _outward(rotations, dq, ddq, gravity, arm):
    """Force and moment that the motion of each link needs, one list of (N, 3) each.

    Weight is an acceleration of the base upwards.
    """
    # angular velocity and acceleration; acceleration of the joint
    w, dw, a = np.zeros((3, len(dq), 3))
    a[:, 2] = gravity
    forces = []
    moments = []
    for i, (link, R) in enumerate(zip(arm, rotations, strict=True)):
        a = _into(R, a + cross(dw, link.place) + cross(w, cross(w, link.place)))
        spin = dq[:, i : i + 1] * np.array(link.axis)
        carried = _into(R, w)
        dw = _into(R, dw) + cross(carried, spin) + ddq[:, i : i + 1] * np.array(link.axis)
        w = carried + spin
        at_centre = a + cross(dw, link.centre) + cross(w, cross(w, link.centre))
        forces.append(link.mass * at_centre)  # Newton
        moments.append(dw * link.inertia + cross(w, w * link.inertia))  # Euler
    return forces, moments


def _inward(rotations, forces, moments, arm):
    """The torque of each joint: of the moment that it bears for all links from it outward, the part
    along its axis.
    """
    torque = np.empty((len(forces[0]), len(arm)))
    f = n = np.zeros_like(forces[0])  # on the next link, in the frame before its joint
    place = np.zeros(3)
    for i in reversed(range(len(arm))):
        link = arm[i]
        R = rotations[i]
        n = moments[i] + n + cross(link.centre, forces[i]) + cross(place, f)
        f = forces[i] + f
        torque[:, i] = n @ np.array(link.axis, dtype=float)
        f = _out(R, f)
        n = _out(R, n)
        place = link.place
    return torque


def mass_matrix(q: ArrayNJ, *, arm: Arm = ARM) -> Annotated[np.ndarray, "N, joints, joints"]:
    """M(q), symmetric and positive definite.

    Column j is the torque for ddq = e_j, at rest and without weight.
    """
    N, n = q.shape
    unit = np.tile(np.eye(n), (N, 1))
    torque = inverse_dynamics(np.repeat(q, n, axis=0), 0 * unit, unit, gravity=0.0, arm=arm)
    return torque.reshape(N, n, n).transpose(0, 2, 1)


def forward_dynamics(
    q: ArrayNJ, dq: ArrayNJ, torque: ArrayNJ, *, gravity: float = GRAVITY, arm: Arm = ARM
) -> ArrayNJ:
    """The accelerations M(q)⁻¹ (τ − c(q, q̇))."""
    c = inverse_dynamics(q, dq, np.zeros_like(q), gravity=gravity, arm=arm)
    return np.linalg.solve(mass_matrix(q, arm=arm), (torque - c)[:, :, None])[:, :, 0]


def centres(q: ArrayNJ, *, arm: Arm = ARM) -> Annotated[np.ndarray, "N, joints, 3"]:
    """The places of the links' centres of mass, in the frame of the base."""
    R = np.broadcast_to(np.eye(3), (len(q), 3, 3))
    place = np.zeros((len(q), 3))
    out = []
    for i, link in enumerate(arm):
        place = place + R @ np.array(link.place, dtype=float)
        R = R @ rotation(link.axis, q[:, i])
        out.append(place + R @ np.array(link.centre, dtype=float))
    return np.stack(out, axis=1)


def energy(q: ArrayNJ, dq: ArrayNJ, *, gravity: float = GRAVITY, arm: Arm = ARM) -> ArrayN:
    """½ q̇ᵀ M q̇ + Σ m g z, in J: constant where no torque acts."""
    kinetic = 0.5 * np.einsum("ni,nij,nj->n", dq, mass_matrix(q, arm=arm), dq)
    return kinetic + gravity * centres(q, arm=arm)[:, :, 2] @ np.array([link.mass for link in arm])


def simulate(
    q: ArrayNJ,
    dq: ArrayNJ,
    torque: float | ArrayNJ = 0.0,
    *,
    dt: float = 1e-3,
    gravity: float = GRAVITY,
    arm: Arm = ARM,
) -> Iterator[tuple[ArrayNJ, ArrayNJ]]:
    """The arm from q, dq under a constant torque: yields (q, dq) at t = 0, dt, 2 dt, ... s.

    Runge-Kutta method of order 4. The iterator has no end.
    """
    torque = np.broadcast_to(np.asarray(torque, dtype=float), q.shape)

    def slope(q, dq):
        return dq, forward_dynamics(q, dq, torque, gravity=gravity, arm=arm)

    while True:
        yield q, dq
        k1 = slope(q, dq)
        k2 = slope(q + dt / 2 * k1[0], dq + dt / 2 * k1[1])
        k3 = slope(q + dt / 2 * k2[0], dq + dt / 2 * k2[1])
        k4 = slope(q + dt * k3[0], dq + dt * k3[1])
        q, dq = (
            s + dt / 6 * (a + 2 * b + 2 * c + d)
            for s, a, b, c, d in zip((q, dq), k1, k2, k3, k4, strict=True)
        )


# --- The task -------------------------------------------------------------------------------------


class Ranges(NamedTuple):
    """Angles, velocities and torques are uniform within ± these, the angles about `middle`.

    One number per joint each.
    """

    middle: tuple[float, ...]
    q: tuple[float, ...]
    dq: tuple[float, ...]
    torque: tuple[float, ...]


def _ranges(middle, q, dq):
    return Ranges(middle, (q, 0.8 * q, 0.8 * q, 0.8 * q), (dq,) * 4, (8.0, 8.0, 4.0, 1.5))


# The middle and the velocities were chosen first, then the size of the ranges was calibrated: the
# best linear map leaves .31 with each of them. What remains for nonlinear learners differs.
RANGES = {
    "elbow bent": _ranges((0.0, -0.5, 1.5, 0.5), 1.6, 3.2),
    "elbow bent, fast": _ranges((0.0, -0.5, 1.5, 0.5), 1.28, 5.12),
    "reaching down": _ranges((0.0, 0.4, 0.9, 0.0), 1.25, 1.25),
    "stretched out": _ranges((0.0, 0.0, 0.0, 0.0), 1.8, 1.8),
}
DEFAULT = "elbow bent"


class ArmTask(NamedTuple):
    """Inputs and outputs with mean 0 and standard deviation 1 over the training set."""

    x_train: ArrayND  # (N, 12) angles, velocities, torques
    y_train: ArrayND  # (N, 4) accelerations
    x_test: ArrayND
    y_test: ArrayND


def draw_states(
    rng: Rng, n: int, ranges: Ranges = RANGES[DEFAULT]
) -> tuple[ArrayNJ, ArrayNJ, ArrayNJ]:
    """n random states: (q, dq, torque), each (n, 4)."""
    q, dq, torque = (rng.uniform(-1, 1, (n, JOINTS)) * np.array(r) for r in ranges[1:])
    return q + np.array(ranges.middle), dq, torque


def arm_task(
    rng: Rng, *, n_train: int = 15_000, n_test: int = 5_000, ranges: Ranges = RANGES[DEFAULT]
) -> ArmTask:
    """The surrogate of the paper's task: fresh states and their accelerations, standardised.

    Standardised outputs have equal shares in a sum of squared errors; otherwise the light hand
    would dominate it. Raises InputError for other ranges, and where a range leaves no variance.
    """
    generator("rng", rng)
    n_train = integer("n_train", n_train, minimum=2)
    n_test = integer("n_test", n_test)
    if not isinstance(ranges, Ranges):
        raise InputError(f"ranges: wanted Ranges(...) or one of RANGES, got {ranges!r}")
    for name, values in ranges._asdict().items():
        array(f"ranges.{name}", values, (JOINTS,))
    q, dq, torque = draw_states(rng, n_train + n_test, ranges)
    x = _standardised(np.concatenate([q, dq, torque], axis=1), n_train)
    y = _standardised(forward_dynamics(q, dq, torque), n_train)
    return ArmTask(x[:n_train], y[:n_train], x[n_train:], y[n_train:])


def _standardised(values, n_train):
    mean = values[:n_train].mean(axis=0)
    sd = values[:n_train].std(axis=0)
    if not (sd > 0).all():
        raise InputError(f"ranges: wanted every input and output to vary, got deviations {sd}")
    return (values - mean) / sd


def relative_error(wanted: ArrayND, got: ArrayND) -> float:
    """Mean squared error, divided by that of predicting the mean."""
    return float(((wanted - got) ** 2).sum() / ((wanted - wanted.mean(axis=0)) ** 2).sum())
