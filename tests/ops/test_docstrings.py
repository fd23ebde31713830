"""Every public operation says what it takes, returns, raises and costs, and its example runs."""

from __future__ import annotations

import doctest
import inspect
import sys

import pytest
import torch

from bdgf_fast import ops

OPERATIONS = [getattr(ops, name) for name in ops.__all__]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda f: f.__name__)
def test_the_example_runs(operation):
    found = doctest.DocTestFinder(recurse=False).find(operation, globs={**vars(sys.modules[operation.__module__]), "torch": torch})
    assert sum(len(test.examples) for test in found) > 0, "no example"
    report: list[str] = []
    for test in found:
        result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=report.append)
        assert result.failed == 0, "".join(report)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda f: f.__name__)
def test_the_docstring_is_complete(operation):
    text = inspect.getdoc(operation)
    if operation is ops.ddim_step:  # refers to ddpm_step but for eta
        assert "complexity as for `ddpm_step`" in text
        return
    for section in ("Args:", "Returns:", "Raises:", "Complexity: ", "Examples:"):
        assert f"\n{section}" in text, f"{section} is missing"
    arguments = text[text.index("Args:") : text.index("Returns:")]
    missing = [name for name in inspect.signature(operation).parameters if name not in arguments]
    assert not missing
