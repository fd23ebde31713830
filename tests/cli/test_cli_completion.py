"""The completion script, in the shell that it is for."""

import shutil
import subprocess

import pytest

from bdgf_fast.cli import main

ASK = """
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
compopt() {{ :; }}
_bdgf_fast
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script():
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        assert main(["completion", "bash"]) == 0
    return text.getvalue()


@pytest.mark.parametrize(
    ("words", "found", "missing"),
    [
        ("bdgf-fast ''", {"run", "study", "data", "bench"}, {"--overwrite", "check"}),
        ("bdgf-fast data ''", {"check", "list"}, {"run"}),
        ("bdgf-fast run scene.toml --o", {"--out", "--overwrite"}, {"--resume"}),
        ("bdgf-fast run scene.toml --baselines ''", {"none", "forest", "cnn", "all"}, {"--out", "run"}),
        ("bdgf-fast run scene.toml --set train.ep", {"train.epochs="}, {"train.batch="}),
        ("bdgf-fast data check --st", {"--strict"}, {"--run"}),
        ("bdgf-fast ru", {"run"}, {"runs"}),
        ("bdgf-fast data ''", {"check"}, {"runs"}),
        ("bdgf-fast evaluate ru", {"runs"}, {"run"}),
        ("bdgf-fast run my", {"my scene.toml"}, {"run"}),
    ],
)
def test_words_are_completed(script, words, found, missing, tmp_path):
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    (tmp_path / "runs").mkdir()
    (tmp_path / "my scene.toml").touch()
    done = subprocess.run(["bash", "-c", script + ASK.format(words=words)], capture_output=True, text=True, cwd=tmp_path)
    offered = set(done.stdout.splitlines())
    assert done.stderr == "" and found <= offered and not missing & offered
