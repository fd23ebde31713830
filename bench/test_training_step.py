"""One training step of the group network at the default configuration: the kernels against the fastest plain ops.

    pytest bench/test_training_step.py --benchmark-only -s

Both networks are the same module; `use_backend` is the only difference. The plain one gets the best that torch can do here:
its scan is the fastest of the reference's loop, a materialised loop and mambapy's parallel scan, its attention SDPA where that
is faster. Memory is VmHWM of fresh processes (run as `python test_training_step.py BACKEND SCAN ATTENTION`), less what was
resident before the first step.
"""

from __future__ import annotations

import os
import subprocess
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch  # noqa: E402
from baselines_scan import materialised, parallel  # noqa: E402
from race import race, report  # noqa: E402

from bdgf_fast import backends, reference  # noqa: E402
from bdgf_fast.common.optimisation import Optimisation  # noqa: E402
from bdgf_fast.config import Config  # noqa: E402
from bdgf_fast.network.group_network import DenseNetwork  # noqa: E402
from bdgf_fast.network.head import Address  # noqa: E402
from bdgf_fast.network.losses import group_loss  # noqa: E402
from bdgf_fast.ops.cross_attention import _library_attention  # noqa: E402

BANDS, GUIDES, CLASSES = 15, 3, 5  # Sentinel-2, Sentinel-1 and heights; one guide per level
LABELS = 110
"""What the crops of a step hold on the Sentinel tile."""


def by_direction(scan):
    """A scan of one sequence as `reference.selective_scan` is called by the 2-D one: a call for each direction."""

    def selective_scan(u, delta, A, B, C, D, delta_bias, delta_softplus):
        directions = range(B.shape[1])
        cut = [x.unflatten(1, (B.shape[1], -1)) for x in (u, delta + delta_bias[:, None])]
        rows = [x.unflatten(0, (B.shape[1], -1)) for x in (A, D)]
        return torch.cat([scan(*(x[:, k] for x in cut), rows[0][k], B[:, k], C[:, k], rows[1][k]) for k in directions], 1)

    return selective_scan


SCANS = {"loop": reference.selective_scan, "unbind": by_direction(materialised), "pscan": by_direction(parallel)}
ATTENTIONS = {"plain": reference.cross_attention, "sdpa": _library_attention}


def choose(scan: str, attention: str) -> None:
    """Let the backend `reference` use these."""
    sys.modules["bdgf_fast.reference.selective_scan"].selective_scan = SCANS[scan]
    backends.register_plain("cross_attention", "reference", ATTENTIONS[attention])


class Training:
    """The network, its optimiser and one batch, everything decided by one seed."""

    def __init__(self) -> None:
        config = Config()
        torch.manual_seed(0)
        side, crops, self.train = config.train.crop, config.train.crops, config.train
        guides = [config.features.channels] * GUIDES
        self.network = DenseNetwork([BANDS], guides, CLASSES, config.model).train()
        self.x = torch.randn(crops, BANDS, side + 2, side + 2)
        self.maps = [torch.randn(crops, channels, side, side) for channels in guides]
        margin = config.model.map_radius
        at = torch.randint(margin, side - margin, (LABELS, 3))
        at[:, 0] = torch.arange(LABELS) % crops
        self.at, self.statistics = at, torch.randn(LABELS, max(self.network.seen))
        self.target = torch.randint(0, CLASSES, (LABELS,))
        self.address = Address(0, torch.arange(LABELS), 0)  # both backends drop the same
        rates = (self.train.learning_rate, self.train.weight_decay, self.train.warmup)
        self.optimisation = Optimisation(self.network, *rates, 1000, self.train.ema, self.train.clip_gradient)

    def loss(self, backend: str | None):
        with backends.use_backend(backend):
            out = self.network(self.x, self.maps, self.statistics, self.at, self.address)
        parts = [group_loss(p.logits, p.features, p.log_fused, self.target, self.train, 1.0)[0] for p in out.parts()]
        return torch.stack(parts).sum()

    def step(self, backend: str | None):
        loss = self.loss(backend)
        self.optimisation.step(loss, 0)
        return loss.item()


def gate() -> None:
    """The loss and every gradient of the two networks agree before anything is timed."""
    training, found = Training(), {}
    parameters = list(training.network.parameters())
    for backend in (None, "reference"):
        loss = training.loss(backend)
        found[backend] = [loss, *torch.autograd.grad(loss, parameters)]
    for ours, plain in zip(*found.values(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-3 * plain.abs().max().item() + 1e-6)


def status(key: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key))


def peak(backend: str, *plain: str) -> tuple[float, float]:
    """(VmHWM of a process that makes four steps, what the steps added to it), in MiB."""
    run = subprocess.run([sys.executable, __file__, backend, *plain], capture_output=True, text=True, check=True)
    whole, before = map(int, run.stdout.split())
    return whole / 1024, (whole - before) / 1024


def scan_share(training: Training) -> float:
    """The scans' share of a step's time, forward and backward."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(5):
            with torch.profiler.record_function("whole step"):
                training.step(None)
    times = {event.key: event.cpu_time_total for event in profile.key_averages()}
    return sum(time for name, time in times.items() if "selective_scan" in name and "_Kernel" not in name) / times["whole step"]


def test_training_step(benchmark):
    training = Training()
    best = {}
    for scan in SCANS:
        choose(scan, "plain")
        best[scan] = race({"step": lambda: training.step("reference")}, 1.5, 5)["step"]
    scan = min(best, key=best.get)
    best = {}
    for attention in ATTENTIONS:
        choose(scan, attention)
        best[attention] = race({"step": lambda: training.step("reference")}, 1.5, 5)["step"]
    plain = scan, min(best, key=best.get)
    choose(*plain)
    gate()
    best = race({"ours": lambda: training.step(None), " + ".join(plain): lambda: training.step("reference")}, 6.0)
    ratio, share = best[" + ".join(plain)] / best["ours"], scan_share(training)
    (ours, added), (theirs, added_there) = peak("", *plain), peak("reference", *plain)
    report(
        benchmark, "training step, default configuration", best, ratio=ratio, wanted=2.0, scan_share=share, peak_mib=ours,
        plain_peak_mib=theirs, added_mib=added, plain_added_mib=added_there, memory_share=added / added_there,
    )  # fmt: skip


if __name__ == "__main__":
    backend, *chosen = sys.argv[1:]
    choose(*chosen)
    training = Training()
    before = status("VmRSS")
    for _ in range(4):
        training.step(backend or None)
    print(status("VmHWM"), before)
