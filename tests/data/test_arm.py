"""The surrogate arm: its mechanics against another derivation, conservation laws, and its task."""

import itertools

import numpy as np
import pytest

from moe_np.base.checks import InputError
from moe_np.data import arm


@pytest.fixture
def states():
    rng = np.random.default_rng(0)
    return rng.uniform(-3, 3, (40, 4)), rng.normal(size=(40, 4)) * 2, rng.normal(size=(40, 4))


def poses(q, link):
    """Centre of mass (N, 3) and rotation (N, 3, 3) of a link, by products of rotations."""
    R = np.broadcast_to(np.eye(3), (len(q), 3, 3))
    for i in range(link + 1):
        R = R @ arm.rotation(arm.ARM[i].axis, q[:, i])
    return arm.centres(q)[:, link], R


def kinetic_energy(q, dq, h=1e-5):
    """½ Σ m v² + ω·Iω with the links' velocities from differences of their places, without
    Newton-Euler.
    """
    total = 0.0
    for i, link in enumerate(arm.ARM):
        after, R_after = poses(q + h * dq, i)
        before, R_before = poses(q - h * dq, i)
        _, R = poses(q, i)
        v = (after - before) / (2 * h)
        # the matrix of ω × in the link's frame
        spin = R.transpose(0, 2, 1) @ (R_after - R_before) / (2 * h)
        w = np.stack([spin[:, 2, 1], spin[:, 0, 2], spin[:, 1, 0]], axis=1)
        total = total + 0.5 * link.mass * (v**2).sum(axis=1) + 0.5 * (w**2) @ np.array(link.inertia)
    return total


def test_the_mass_matrix_is_symmetric_and_positive_definite(states):
    M = arm.mass_matrix(states[0])
    np.testing.assert_allclose(M, M.transpose(0, 2, 1), atol=1e-14)
    assert np.linalg.eigvalsh(M).min() > 1e-3
    assert np.abs(M - M.mean(axis=0)).max() > 0.1, "it depends on the angles"


def test_the_mass_matrix_is_that_of_the_kinetic_energy(states):
    q, dq, _ = states
    np.testing.assert_allclose(arm.energy(q, dq, gravity=0.0), kinetic_energy(q, dq), rtol=1e-8)


def test_newton_and_euler_agree_with_lagrange(states):
    """τ = d/dt (M q̇) − ∂(½ q̇ᵀ M q̇)/∂q + ∂V/∂q, by differences of mass matrix and height."""
    q, dq, ddq = states
    h = 1e-5
    at_rest = np.zeros_like(dq)
    dM = (arm.mass_matrix(q + h * dq) - arm.mass_matrix(q - h * dq)) / (2 * h)  # Ṁ
    torque = np.einsum("nij,nj->ni", arm.mass_matrix(q), ddq) + np.einsum("nij,nj->ni", dM, dq)
    for i, step in enumerate(h * np.eye(4)):
        up, down = q + step, q - step
        kinetic = arm.energy(up, dq, gravity=0.0) - arm.energy(down, dq, gravity=0.0)
        potential = arm.energy(up, at_rest) - arm.energy(down, at_rest)
        torque[:, i] += (potential - kinetic) / (2 * h)
    np.testing.assert_allclose(arm.inverse_dynamics(q, dq, ddq), torque, rtol=1e-6, atol=1e-6)


def test_forward_undoes_inverse(states):
    q, dq, torque = states
    ddq = arm.forward_dynamics(q, dq, torque)
    np.testing.assert_allclose(arm.inverse_dynamics(q, dq, ddq), torque, atol=1e-11)
    bias = arm.inverse_dynamics(q, dq, np.zeros_like(q))
    joined = np.einsum("nij,nj->ni", arm.mass_matrix(q), ddq) + bias
    np.testing.assert_allclose(joined, torque, atol=1e-11)


@pytest.mark.parametrize("gravity", [0.0, arm.GRAVITY])
def test_energy_is_conserved(states, gravity):
    q, dq, _ = (s[:8] for s in states)
    path = itertools.islice(arm.simulate(q, dq, dt=2e-3, gravity=gravity), 0, 41, 10)
    energies = np.array([arm.energy(*state, gravity=gravity) for state in path])
    constant = np.broadcast_to(energies[0], energies.shape)
    np.testing.assert_allclose(energies, constant, rtol=1e-5, atol=1e-5)


def test_a_torque_does_work(states):
    """The energy gained is ∫ τ·q̇ dt, by the trapezium rule."""
    q, dq, torque = (s[:8] for s in states)
    dt = 2e-3
    path = list(itertools.islice(arm.simulate(q, dq, torque, dt=dt), 41))
    power = np.array([(torque * v).sum(axis=1) for _, v in path])
    work = dt * (power.sum(axis=0) - (power[0] + power[-1]) / 2)
    gain = arm.energy(*path[-1]) - arm.energy(*path[0])
    np.testing.assert_allclose(gain, work, rtol=1e-3, atol=1e-4)


def test_one_pendulum_by_hand():
    """A rod of 1 kg and 1 m on a level axis: M = m l² / 3, weight m g l/2 cos θ, θ downwards."""
    rod = (arm.Link((0, 1, 0), (0, 0, 0), 1.0, (0.5, 0, 0), (0, 1 / 12, 1 / 12)),)
    q, dq, torque = np.array([0.3, 1.7, 0.4]).reshape(3, 1, 1)
    np.testing.assert_allclose(arm.mass_matrix(q, arm=rod), [[[1 / 3]]])
    ddq = arm.forward_dynamics(q, dq, torque, arm=rod)
    np.testing.assert_allclose(ddq, 3 * (0.4 + 9.81 / 2 * np.cos(0.3)))


def test_the_task_is_standardised_and_reproducible():
    a, b = (arm.arm_task(np.random.default_rng(3), n_train=500, n_test=200) for _ in range(2))
    assert a.x_train.shape == (500, 12) and a.y_test.shape == (200, 4)
    assert all(np.array_equal(s, t) for s, t in zip(a, b, strict=True))
    for train in (a.x_train, a.y_train):
        np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(train.std(axis=0), 1)


@pytest.mark.parametrize("name", arm.RANGES)
def test_the_calibrated_row(name):
    """The ranges were chosen for this number: no evidence for the surrogate, but a fixed value."""
    task = arm.arm_task(np.random.default_rng(1), ranges=arm.RANGES[name])
    inputs = [np.column_stack([x, np.ones(len(x))]) for x in (task.x_train, task.x_test)]
    coef = np.linalg.lstsq(inputs[0], task.y_train, rcond=None)[0]
    assert arm.relative_error(task.y_test, inputs[1] @ coef) == pytest.approx(0.31, abs=0.008)
    mean = np.broadcast_to(task.y_test.mean(axis=0), task.y_test.shape)
    assert arm.relative_error(task.y_test, mean) == pytest.approx(1)


def test_ranges_are_checked():
    ranges = arm.RANGES[arm.DEFAULT]
    constant_velocity = ranges._replace(dq=(0, 1, 1, 1))
    with pytest.raises(InputError, match="ranges: wanted every input and output to vary"):
        arm.arm_task(np.random.default_rng(0), n_train=10, n_test=5, ranges=constant_velocity)
    with pytest.raises(InputError, match=r"ranges.q: wanted shape \(4,\)"):
        arm.arm_task(np.random.default_rng(0), ranges=ranges._replace(q=(1, 1, 1)))
    with pytest.raises(InputError, match="ranges: wanted Ranges"):
        arm.arm_task(np.random.default_rng(0), ranges="elbow bent")
    with pytest.raises(InputError, match="rng: wanted a numpy"):
        arm.arm_task(0)


def test_states_are_checked(states):
    q, dq, ddq = states
    with pytest.raises(InputError, match=r"q: wanted shape \(N, 4\), got \(40, 3\)"):
        arm.inverse_dynamics(q[:, :3], dq, ddq)
    with pytest.raises(InputError, match=r"dq: wanted shape \(40, 4\), got \(1, 4\)"):
        arm.forward_dynamics(q, dq[:1], ddq)
