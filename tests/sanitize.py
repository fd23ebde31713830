"""Build the extension under AddressSanitizer and UndefinedBehaviorSanitizer and run the native tests on it.

    python tests/sanitize.py [pytest arguments]        (`make sanitize`; not collected by pytest)

The build goes to build/sanitize and is no installation. The sanitizer's runtime has to come first in the process, hence
LD_PRELOAD; every allocation, torch's too, then has guarded ends: a kernel that touches what lies beyond a tensor ends the run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "sanitize"
SITE = BUILD / "site"
# Every kernel on every instruction set level, and what stands around them. Left out: what starts children of its own, runs
# the compiler, or is there for the many samples it takes.
TESTS = ("tests/native", "tests/ops/test_selective_scan.py", "tests/ops/test_selective_scan_2d.py",
         "tests/ops/test_q_sample.py", "tests/ops/test_denoising_loss.py", "tests/ops/test_diffusion_step.py")  # fmt: skip
LEFT_OUT = ("environment or unknown_level or missing_extension or links_neither or forked or data_loader or past_31_bits or fake"
            " or compile or reference or many or gradcheck or against_float64 or thread_sanitizer")  # fmt: skip


def build() -> None:
    settings = ["cmake.define.BDGF_SANITIZE=ON", "cmake.define.BDGF_CUDA=OFF", "cmake.build-type=Debug"]
    settings += [f"build-dir={BUILD / 'cmake'}", "install.strip=false"]
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-build-isolation", "--no-deps"]
    command += ["--upgrade", "--target", str(SITE), *(f"--config-settings={s}" for s in settings), str(ROOT)]
    subprocess.run(command, check=True)


def test(arguments: list[str]) -> int:
    compiler = os.environ.get("CXX", "g++")
    runtime = [subprocess.check_output([compiler, f"-print-file-name=lib{n}.so"], text=True).strip() for n in ("asan", "ubsan")]
    # Python and torch keep memory to the end of the process on purpose.
    environment = os.environ | {
        "LD_PRELOAD": ":".join(runtime),
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:detect_stack_use_after_return=0",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }
    program = (
        "import sys\n"
        # An editable install must not answer for the package.
        "sys.meta_path[:] = [f for f in sys.meta_path if 'ScikitBuild' not in type(f).__name__]\n"
        f"sys.path.insert(0, {str(SITE)!r})\n"
        "from bdgf_fast import _native\n"
        f"assert _native.load().__file__.startswith({str(SITE)!r}), _native.load().__file__\n"
        "import pytest\n"
        "sys.exit(pytest.main(sys.argv[1:]))"
    )
    # The sanitizers write to the process's own stderr: it must not be captured.
    chosen = [*TESTS, "-k", f"not ({LEFT_OUT})", "-q", "-x", "-p", "no:cacheprovider", "--capture=sys"]
    command = [sys.executable, "-c", program, *chosen, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    build()
    sys.exit(test(sys.argv[1:]))
