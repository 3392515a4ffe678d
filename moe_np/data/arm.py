"""A surrogate for the robot arm of Jordan and Jacobs (1994): four joints in three dimensions, by
Newton and Euler.

The task there: from 4 joint angles, 4 velocities and 4 torques tell the 4 accelerations. The arm's
equations, masses and ranges are not in the paper. This is another arm of the same kind, a
surrogate: numbers made with it can be set beside the published ones but do not reproduce them. Its
ranges were chosen so that the best linear map leaves .31 of the variance, as published; that row of
a table is therefore no evidence of anything.

    M(q) q̈ + c(q, q̇) = τ        c: what it takes to hold q̈ = 0, the velocities' own forces and the weight

    here     shape      meaning
    q        (N, 4)     joint angles, rad
    dq       (N, 4)     velocities, rad/s
    ddq      (N, 4)     accelerations, rad/s²
    torque   (N, 4)     N m

`inverse_dynamics` is the recursive Newton-Euler algorithm (Luh, Walker and Paul 1980; Craig 1986,
chapter 6): out along the arm for velocities and accelerations of each link, back for forces. It is
linear in q̈, and M and c are what it says for unit accelerations and for none. Every function takes
N arms at once.
"""

from typing import NamedTuple

import numpy as np

from moe_np.base.checks import InputError, array, generator, integer

GRAVITY = 9.81  # m/s², down along z


class Link(NamedTuple):
    """One link, in a frame that turns with it. Its joint is at the origin."""

    axis: tuple  # of the joint, unit vector; the same in the frame before
    place: tuple  # of the joint in the frame before, m
    mass: float  # kg
    centre: tuple  # of mass, m
    inertia: tuple  # about the centre, along the three axes, kg m²


def _rod(mass, length, radius):
    """Inertia of a full cylinder along x."""
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


def rotation(axis, angle):
    """R (N, 3, 3) with R v the vector v of the turned frame in the frame before: I + sin θ K + (1 −
    cos θ) K².
    """
    x, y, z = axis
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=float)
    sin, cos = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sin * K + (1 - cos) * (K @ K)


def cross(a, b):
    """a × b along the last axis, as np.cross but without its overhead, which would be most of the
    time here.
    """
    a, b = np.asarray(a), np.asarray(b)
    return a[..., [1, 2, 0]] * b[..., [2, 0, 1]] - a[..., [2, 0, 1]] * b[..., [1, 2, 0]]


def _into(R, v):
    """Rᵀ v: from the frame before into the link's own."""
    return np.einsum("nji,nj->ni", R, v)


def _out(R, v):
    return np.einsum("nij,nj->ni", R, v)


def inverse_dynamics(q, dq, ddq, *, gravity=GRAVITY, arm=ARM):
    """The torques (N, 4) under which the arm moves with q, dq, ddq."""
    q = array("q", q, ("N", len(arm)))
    dq, ddq = array("dq", dq, q.shape), array("ddq", ddq, q.shape)
    turns = [rotation(link.axis, q[:, i]) for i, link in enumerate(arm)]
    forces, moments = _outward(turns, dq, ddq, gravity, arm)
    return _inward(turns, forces, moments, arm)


def _outward(turns, dq, ddq, gravity, arm):
    """Force and moment that each link's motion needs, [(N, 3)] each. Weight is an acceleration of
    the base upwards.
    """
    w, dw, a = np.zeros(
        (3, len(dq), 3)
    )  # angular velocity and acceleration; acceleration of the joint
    a[:, 2] = gravity
    forces, moments = [], []
    for i, (link, R) in enumerate(zip(arm, turns, strict=True)):
        a = _into(R, a + cross(dw, link.place) + cross(w, cross(w, link.place)))
        spin = dq[:, i : i + 1] * np.array(link.axis)
        carried = _into(R, w)
        dw = _into(R, dw) + cross(carried, spin) + ddq[:, i : i + 1] * np.array(link.axis)
        w = carried + spin
        at_centre = a + cross(dw, link.centre) + cross(w, cross(w, link.centre))
        forces.append(link.mass * at_centre)  # Newton
        moments.append(dw * link.inertia + cross(w, w * link.inertia))  # Euler
    return forces, moments


def _inward(turns, forces, moments, arm):
    """What each joint has to bear for all links from it outward; the torque is the part along its
    axis.
    """
    torque = np.empty((len(forces[0]), len(arm)))
    f = n = np.zeros_like(forces[0])  # on the next link, in its joint's frame before
    place = np.zeros(3)
    for i in reversed(range(len(arm))):
        link, R = arm[i], turns[i]
        n = moments[i] + n + cross(link.centre, forces[i]) + cross(place, f)
        f = forces[i] + f
        torque[:, i] = n @ np.array(link.axis, dtype=float)
        f, n, place = _out(R, f), _out(R, n), link.place
    return torque


def mass_matrix(q, *, arm=ARM):
    """M (N, 4, 4), symmetric and positive definite: column j is the torque for ddq = e_j at rest,
    without weight.
    """
    N, n = q.shape
    unit = np.tile(np.eye(n), (N, 1))
    torque = inverse_dynamics(np.repeat(q, n, axis=0), 0 * unit, unit, gravity=0.0, arm=arm)
    return torque.reshape(N, n, n).transpose(0, 2, 1)


def forward_dynamics(q, dq, torque, *, gravity=GRAVITY, arm=ARM):
    """The accelerations (N, 4): M(q)⁻¹ (τ − c(q, q̇))."""
    c = inverse_dynamics(q, dq, np.zeros_like(q), gravity=gravity, arm=arm)
    return np.linalg.solve(mass_matrix(q, arm=arm), (torque - c)[:, :, None])[:, :, 0]


def centres(q, *, arm=ARM):
    """Where the links' centres of mass are in the room: (N, 4, 3)."""
    R, place = np.broadcast_to(np.eye(3), (len(q), 3, 3)), np.zeros((len(q), 3))
    out = []
    for i, link in enumerate(arm):
        place = place + R @ np.array(link.place, dtype=float)
        R = R @ rotation(link.axis, q[:, i])
        out.append(place + R @ np.array(link.centre, dtype=float))
    return np.stack(out, axis=1)


def energy(q, dq, *, gravity=GRAVITY, arm=ARM):
    """½ q̇ᵀ M q̇ + Σ m g z, (N,): constant where no torque acts."""
    kinetic = 0.5 * np.einsum("ni,nij,nj->n", dq, mass_matrix(q, arm=arm), dq)
    return kinetic + gravity * centres(q, arm=arm)[:, :, 2] @ np.array([link.mass for link in arm])


def swing(q, dq, torque=0.0, *, dt=1e-3, gravity=GRAVITY, arm=ARM):
    """The arm let go at q, dq under a constant torque: yields (q, dq) at t = 0, dt, 2 dt, ...
    without end.

    Runge-Kutta of order 4.
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
    """Angles, velocities and torques are uniform within ± these of the middle, a number a joint."""

    middle: tuple
    q: tuple
    dq: tuple
    torque: tuple


def _ranges(middle, q, dq):
    return Ranges(middle, (q, 0.8 * q, 0.8 * q, 0.8 * q), (dq,) * 4, (8.0, 8.0, 4.0, 1.5))


# posture in the middle and velocities were chosen, then the size of the ranges was calibrated: the
# best linear map leaves .31 with each of them. What is left for other learners to do differs all
# the same.
RANGES = {
    "elbow bent": _ranges((0.0, -0.5, 1.5, 0.5), 1.6, 3.2),
    "elbow bent, fast": _ranges((0.0, -0.5, 1.5, 0.5), 1.28, 5.12),
    "reaching down": _ranges((0.0, 0.4, 0.9, 0.0), 1.25, 1.25),
    "stretched out": _ranges((0.0, 0.0, 0.0, 0.0), 1.8, 1.8),
}
DEFAULT = "elbow bent"


class ArmTask(NamedTuple):
    """Inputs and outputs in units of their standard deviation in the training set, about their mean
    there.
    """

    x_train: np.ndarray  # (N, 12) angles, velocities, torques
    y_train: np.ndarray  # (N, 4) accelerations
    x_test: np.ndarray
    y_test: np.ndarray


def draw(rng, n, ranges=RANGES[DEFAULT]):
    """n states at random: q, dq, torque, each (n, 4)."""
    q, dq, torque = (rng.uniform(-1, 1, (n, JOINTS)) * np.array(r) for r in ranges[1:])
    return q + np.array(ranges.middle), dq, torque


def arm_task(rng, *, n_train=15_000, n_test=5_000, ranges=RANGES[DEFAULT]):
    """The surrogate of the paper's task: fresh states, their accelerations, all standardised.
    Returns an ArmTask.

    Every output counts the same in a sum of squared errors; unscaled, the light hand would be most
    of it.
    """
    generator("rng", rng)
    n_train, n_test = integer("n_train", n_train, minimum=2), integer("n_test", n_test)
    if not isinstance(ranges, Ranges):
        raise InputError(f"ranges: wanted Ranges(...) or one of RANGES, got {ranges!r}")
    for name, values in ranges._asdict().items():
        array(f"ranges.{name}", values, (JOINTS,))
    q, dq, torque = draw(rng, n_train + n_test, ranges)
    x = np.concatenate([q, dq, torque], axis=1)
    y = forward_dynamics(q, dq, torque)
    parts = []
    for values in (x, y):
        mean, sd = values[:n_train].mean(axis=0), values[:n_train].std(axis=0)
        if not (sd > 0).all():
            raise InputError(f"ranges: wanted every input and output to vary, got deviations {sd}")
        parts.append((values - mean) / sd)
    (x, y), cut = parts, n_train
    return ArmTask(x[:cut], y[:cut], x[cut:], y[cut:])


def relative_error(wanted, got):
    """The mean squared error beside that of always saying the mean: one number."""
    return float(((wanted - got) ** 2).sum() / ((wanted - wanted.mean(axis=0)) ** 2).sum())
