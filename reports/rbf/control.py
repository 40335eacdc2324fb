"""A radial-basis network in a closed loop, in fixed point and in floating point: `python -m reports.rbf.control`.

A pendulum arm, J q'' + m g l sin q + friction(q') = u + d, follows a reference. The controller linearises it by feedback,

    u = J (r'' + KD (r' - q') + KP (r - q)) + N(q, q'),

where the network N has learned gravity and friction from noisy torques at 600 states. A torque d pushes the arm for half a second, and
later its mass grows by a fifth, which the network does not know. Without the network the same controller follows badly.

Each step's sample depends on all results before it. So where the RTL gives the same bits for the samples of the whole run, the loop with
the RTL in it is this loop.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel import rbf

MASS, LENGTH, GRAVITY = 1.0, 0.5, 9.81  # kg, m, m/s^2
VISCOUS, COULOMB, SMOOTH = 0.15, 0.6, 0.3  # N m s, N m, rad/s
INERTIA = MASS * LENGTH**2
KP, KD = 25.0, 10.0  # both poles of the linearised loop at -5 / s
LIMIT = 12.0  # N m, of the motor
PERIOD, SUBSTEPS, STEPS = 0.005, 5, 4000  # s of control; steps of the plant in it; 20 s
PUSH, PUSHED = 1.0, (8.0, 8.5)  # N m, s
LOAD, LOADED = 1.2, 12.0  # of the mass, from this time on [s]
SWINGS, SPEEDS = np.array([1.2, 0.4]), np.array([0.4, 1.0]) * np.pi  # of the reference, rad and rad/s
NEURONS, SAMPLES, NOISE, SEED = 24, 600, 0.02, 0  # noise in N m
KEPT = 4  # every so many steps of a series are written

Network = Callable[[NDArray[np.float64]], float]


def resistance(q: Any, speed: Any, load: float = 1.0) -> Any:
    """Return the torque of gravity and friction [N m]."""
    return load * MASS * GRAVITY * LENGTH * np.sin(q) + VISCOUS * speed + COULOMB * np.tanh(speed / SMOOTH)


def train() -> rbf.RbfModel:
    """Fit the network to torques at random states, as a calibration run would measure them."""
    rng = np.random.default_rng(SEED)
    states = rng.uniform([-2.2, -5.0], [2.2, 5.0], (SAMPLES, 2))  # rad, rad/s
    torques = resistance(*states.T) + rng.normal(0, NOISE, SAMPLES)
    return rbf.fit(
        states, torques, neurons=NEURONS, method="ols", test=0.25, seed=SEED, features=("q", "speed"), target="torque", name="pendulum"
    )


def reference(t: float) -> tuple[float, float, float]:
    """Return what the arm is to follow: angle, speed and acceleration [rad, rad/s, rad/s^2]."""
    sine, cosine = np.sin(SPEEDS * t), np.cos(SPEEDS * t)
    return float(SWINGS @ sine), float(SWINGS * SPEEDS @ cosine), float(-SWINGS * SPEEDS**2 @ sine)


@dataclass(frozen=True)
class Run:
    """One run of the loop; arrays of shape (STEPS,), states of shape (STEPS, 2)."""

    states: NDArray[np.float64]
    torque: NDArray[np.float64]
    network: NDArray[np.float64]
    wanted: NDArray[np.float64]

    @property
    def error(self) -> NDArray[np.float64]:
        """Angle that is missing to the reference [rad]."""
        return self.wanted - self.states[:, 0]


def run(network: Network) -> Run:
    """Run the loop with a network that is told the state, shape (2,)."""
    state = np.array([0.0, reference(0)[1]])
    states, torque, said, wanted = np.empty((STEPS, 2)), np.empty(STEPS), np.empty(STEPS), np.empty(STEPS)
    for step in range(STEPS):
        t = step * PERIOD
        r, r_speed, r_acceleration = reference(t)
        states[step], wanted[step], said[step] = state, r, network(state)
        u = INERTIA * (r_acceleration + KD * (r_speed - state[1]) + KP * (r - state[0])) + said[step]
        torque[step] = np.clip(u, -LIMIT, LIMIT)
        for part in range(SUBSTEPS):
            state = _advance(state, torque[step], t + part * PERIOD / SUBSTEPS, PERIOD / SUBSTEPS)
    return Run(states, torque, said, wanted)


def _advance(state: NDArray[np.float64], u: float, t: float, h: float) -> NDArray[np.float64]:
    """Advance the plant by one step of the classical Runge-Kutta method."""
    load = LOAD if t >= LOADED else 1.0
    push = PUSH if PUSHED[0] <= t < PUSHED[1] else 0.0

    def slope(s: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([s[1], (u + push - resistance(s[0], s[1], load)) / (load * INERTIA)])

    k1 = slope(state)
    k2 = slope(state + h / 2 * k1)
    k3 = slope(state + h / 2 * k2)
    k4 = slope(state + h * k3)
    return state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def control(simulator: str | None = "verilator") -> dict[str, Any]:
    """Run the loop without a network, with it in floating and in fixed point, and the samples of the last through the RTL."""
    model = train()
    runs = {
        "without": run(lambda state: 0.0),
        "float": run(lambda state: float(model.reference(state[None]).predictions[0])),
        "fixed": run(lambda state: float(model.simulate(state[None]).predictions[0])),
    }
    exact, fixed = runs["float"], runs["fixed"]
    report: dict[str, Any] = {
        "plant": f"pendulum arm of {MASS} kg at {LENGTH} m, friction {VISCOUS} N m s and {COULOMB} N m, control every {PERIOD * 1e3:g} ms",
        "network": {"neurons": NEURONS, "bits": model.config.x_bits, "error": model.config.error, **model.training["scores"]["held out"]},
        "disturbances": {"push N m": PUSH, "push s": PUSHED, "mass factor": LOAD, "mass from s": LOADED},
        "steps": STEPS,
        "rms rad": {name: float(np.sqrt(np.mean(found.error**2))) for name, found in runs.items()},
        "rms rad, undisturbed": {
            name: float(np.sqrt(np.mean(found.error[: round(PUSHED[0] / PERIOD)] ** 2))) for name, found in runs.items()
        },
        "largest difference of float and fixed": {
            "angle rad": float(np.abs(exact.states - fixed.states)[:, 0].max()),
            "torque N m": float(np.abs(exact.torque - fixed.torque).max()),
            "network N m": float(np.abs(exact.network - fixed.network).max()),
        },
    }
    if simulator:
        from accel.sim.rbf import cosim_model

        found = cosim_model(model, model.quantise(fixed.states), simulator=simulator)
        report["rtl"] = {"simulator": simulator, "steps": found.words, "cycles": sum(found.spans), "differences": 0}
    kept = slice(None, None, KEPT)
    series = {"t s": np.arange(STEPS) * PERIOD, "reference rad": exact.wanted}
    series |= {f"angle rad, {name}": found.states[:, 0] for name, found in runs.items()}
    series |= {f"torque N m, {name}": found.torque for name, found in runs.items()}
    return report | {"series": {name: np.round(values[kept], 6).tolist() for name, values in series.items()}}


def main() -> None:
    """Print the figures and write `control.json` beside this file."""
    parser = argparse.ArgumentParser(
        prog="python -m reports.rbf.control", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulator", default="verilator")
    report = control(parser.parse_args().simulator)
    series = report.pop("series")
    print(json.dumps(report, indent=1))
    lines = ",\n  ".join(f"{json.dumps(name)}: {json.dumps(values)}" for name, values in series.items())
    text = json.dumps(report, indent=1).removesuffix("\n}")
    Path(__file__).with_suffix(".json").write_text(f'{text},\n "series": {{\n  {lines}\n }}\n}}\n')


if __name__ == "__main__":
    main()
