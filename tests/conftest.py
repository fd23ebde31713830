"""Shared by all tests: every backend of this machine as a parameter, poisoned outputs, tolerances against float64."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # before torch: spinning threads starve each other on a busy machine

# Child processes import what is installed, not the source tree they happen to start in.
os.environ["PYTHONSAFEPATH"] = "1"

# pytest puts this folder on the path: where Triton is not installed, torch would take the folder `triton` in it for Triton.
if (found := importlib.util.find_spec("triton")) and found.origin is None:
    sys.modules["triton"] = None  # type: ignore[assignment]  # importing it says that it is not there

import pytest  # noqa: E402
import torch  # noqa: E402

import bdgf_fast.ops  # noqa: E402, F401  (registers the backends)
from bdgf_fast import backends  # noqa: E402

# (rtol, atol as a share of max |expected|) against float64.
TOLERANCES = {
    torch.float64: (1e-9, 1e-10),
    torch.float32: (1e-4, 1e-5),
    torch.float16: (3e-3, 5e-3),
    torch.bfloat16: (3e-2, 5e-2),
}


@dataclass(frozen=True)
class Target:
    """A backend to test and the device its tensors lie on."""

    backend: str
    device: str

    def __str__(self) -> str:
        return f"{self.backend}-{self.device}" if self.device != "cpu" else self.backend


def targets(op: str) -> list[Target]:
    """The kernels of `op` that can run here, and its plain functions."""
    found = [Target(name, "cpu") for name in backends.available(op, "cpu")]
    if torch.cuda.is_available():  # a plain function is the same on every device
        found += [Target(name, "cuda") for name in backends.available(op, "cuda") if name in ("cuda", "triton")]
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sample", type=int, metavar="N", help="run N cases of each test and backend at most, spread over its cases")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    _group_by_shared_fixtures(items)
    # The compile proofs are the longest tests of all. At the end of the run one of them would keep one worker busy and no other.
    items.sort(key=lambda item: item.path.parent.name != "triton")
    most = config.getoption("--sample")
    if not most:
        return
    groups: dict[tuple[str, str], list[pytest.Item]] = {}
    for item in items:
        given = getattr(item, "callspec", None)
        target = str(given.params.get("target", given.params.get("backend", ""))) if given else ""
        groups.setdefault((item.nodeid.split("[")[0], target), []).append(item)
    kept = {id(cases[i * len(cases) // most]) for cases in groups.values() if len(cases) > most for i in range(most)}
    kept |= {id(item) for cases in groups.values() if len(cases) <= most for item in cases}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = [item for item in items if id(item) in kept]


def _group_by_shared_fixtures(items: list[pytest.Item]) -> None:
    """Tests that share a fixture of their module run in one worker, which makes it once: training, building, reading a binary."""
    for item in items:
        fixtures = getattr(item, "_fixtureinfo", None)
        definitions = [d for found in fixtures.name2fixturedefs.values() for d in found] if fixtures else []
        if not item.get_closest_marker("xdist_group") and any(d.scope == "module" for d in definitions):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.split("::")[0]))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `target` runs once for each backend of its module's OP; on a GPU it is marked gpu."""
    if "target" in metafunc.fixturenames:
        found = [pytest.param(t, marks=pytest.mark.gpu if t.device == "cuda" else ()) for t in targets(metafunc.module.OP)]
        metafunc.parametrize("target", found, ids=lambda t: str(t), indirect=True)


@pytest.fixture(autouse=True)
def threads(request: pytest.FixtureRequest):
    """Two for the kernels, which cut their work by the number. The application trains and predicts on those that it was given:
    `make test` gives one, because the threads of several tests on the same cores mostly wait for each other."""
    before = torch.get_num_threads()
    if {"ops", "native", "nn"} & set(request.path.parts):
        torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def target(request: pytest.FixtureRequest):
    """The backend under test, forced for the length of the test."""
    with backends.use_backend(request.param.backend):
        yield request.param


@pytest.fixture(autouse=True)
def poison():
    """torch.empty and its kin return NaN (or the largest integer): what a kernel does not write shows."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _assert_close(actual, expected, dtype: torch.dtype | None = None, scale: float = 1.0, floor: float = 0.0) -> None:
    """`actual` within the tolerance of its dtype (or of `dtype`) of a float64 `expected`, of size `floor` at least."""
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    rtol, atol = TOLERANCES[dtype or actual.dtype]
    expected = expected.detach().to("cpu", torch.float64)
    actual = actual.detach().to("cpu", torch.float64)
    size = max(expected.abs().max().item() if expected.numel() else 0.0, floor)
    torch.testing.assert_close(actual, expected, rtol=rtol * scale, atol=max(atol * size * scale, 1e-30))


@pytest.fixture(scope="session")
def assert_close():
    """assert_close(actual, expected_float64, dtype=None, scale=1.0) by the tolerances above."""
    return _assert_close


def _check_gradients(function, reference, tensors: dict, seed: int = 0, scale: float = 1.0) -> None:
    """`function(**tensors)` and every gradient against `reference` of the float64 copies of the same tensors.

    The float tensors take part with their dtype and strides; each gradient must have its input's dtype and shape.
    """

    def leaves(cast):
        return {name: cast(x.detach()).requires_grad_() if _differentiable(x) else x for name, x in tensors.items()}

    ours = leaves(lambda x: x)
    exact = leaves(lambda x: x.cpu().double())
    exact = {n: x.cpu() if isinstance(x, torch.Tensor) and not _differentiable(x) else x for n, x in exact.items()}
    outputs, expected = function(**ours), reference(**exact)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(e.shape, generator=generator, dtype=torch.float64) for e in expected]
    loosest = max((x.dtype for x in ours.values() if _differentiable(x)), key=lambda d: TOLERANCES[d][0])
    for o, e in zip(outputs, expected, strict=True):
        _assert_close(o, e, loosest, scale)
    sum((o * w.to(o)).sum() for o, w in zip(outputs, weights, strict=True)).backward()
    rounded = [w.to(o.dtype).double() for o, w in zip(outputs, weights, strict=True)]  # what the kernel was given
    sum((e * w).sum() for e, w in zip(expected, rounded, strict=True)).backward()
    # A gradient that is 0 in exact arithmetic is measured against the others.
    sizes = [
        x.grad.abs().max().item() for x in exact.values() if _differentiable(x) and x.grad is not None and x.numel()
    ]
    floor = 3e-2 * max(sizes, default=0.0)
    for name, x in ours.items():
        if not _differentiable(x):
            continue
        if exact[name].grad is None:
            assert x.grad is None or not x.grad.any(), f"{name} has a gradient; the reference has none"
            continue
        assert x.grad is not None, f"{name} has no gradient"
        assert x.grad.dtype == x.dtype and x.grad.shape == x.shape, name
        try:
            _assert_close(x.grad, exact[name].grad, loosest, scale, floor)
        except AssertionError as error:
            raise AssertionError(f"gradient of {name}: {error}") from error


def _differentiable(x) -> bool:
    return isinstance(x, torch.Tensor) and x.is_floating_point()


@pytest.fixture(scope="session")
def check_gradients():
    """check_gradients(function, reference, {name: tensor}): values and gradients against the float64 reference."""
    return _check_gradients
