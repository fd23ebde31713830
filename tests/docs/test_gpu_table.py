"""The table of docs/operations/gpu.md is what the committed results say."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "docs/_build/gpu_table.py"


def test_the_table_is_that_of_the_results():
    spec = importlib.util.spec_from_file_location("gpu_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.PAGE.read_text(encoding="utf-8")
    assert module.table() in text
    assert module.page_with_table(text) == text
