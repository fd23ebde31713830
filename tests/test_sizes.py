"""Kernels are read from top to bottom: no function of csrc and triton_kernels has over 100 lines, no file over 400."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_OF_A_FUNCTION, MOST_OF_A_FILE = 100, 400
PYTHON = sorted((ROOT / "triton_kernels").rglob("*.py"))
CPP = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".h", ".cpp", ".inc", ".cu", ".cuh"})

# Comments, literals and the lines of the preprocessor, whose braces and parentheses mean nothing here.
NO_CODE = re.compile(
    r"//[^\n]*|/\*.*?\*/|R\"(?P<mark>\w*)\(.*?\)(?P=mark)\"|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])'|^[ \t]*#(?:\\\n|[^\n])*",
    re.DOTALL | re.MULTILINE,
)
NO_FUNCTION = re.compile(r"\b(?:namespace|struct|class|union|enum)\b[^()]*$|\bextern\s*$|=\s*$")


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    """(name, lines from `def` to the last statement) of every function, methods and nested ones too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def cpp_functions(text: str) -> Iterator[tuple[str, int]]:
    """(what stands before the brace, lines from there to the closing brace) of every function but those within functions."""
    text = NO_CODE.sub(lambda match: "\n" * match[0].count("\n"), text)
    scopes = parentheses = braces = 0  # that are open: of namespaces and types; round ones; of the function at hand
    head = first = 0
    name = ""
    for match in re.finditer(r"[{}();]", text):
        sign, at = match[0], match.start()
        change = {"{": 1, "}": -1, "(": 1, ")": -1, ";": 0}[sign]
        if braces:
            braces += change if sign in "{}" else 0
        elif sign in "()":
            parentheses += change
        elif parentheses:
            continue  # a default value
        elif sign == "{" and re.match(r"\s*(,|$)", text[head:at]):
            braces = 1  # the next member or the body of the constructor at hand
        else:
            if "(" in name:  # a value has braces too
                yield " ".join(name.split()), text.count("\n", first, head) + 1
            name = ""
            if sign == "{" and NO_FUNCTION.search(text[head:at]) is None:
                braces = 1
                name = text[head:at].lstrip()
                first = at - len(name)
            else:
                scopes += change
        if not braces and sign in "{};" and not parentheses:
            head = at + 1
    assert scopes == braces == parentheses == 0, "braces or parentheses that do not match"


def functions() -> list[tuple[str, str, int]]:
    found = [(path, python_functions) for path in PYTHON] + [(path, cpp_functions) for path in CPP]
    return [
        (str(path.relative_to(ROOT)), name, lines)
        for path, of_file in found
        for name, lines in of_file(path.read_text(encoding="utf-8"))
    ]


def test_no_function_is_too_long():
    found = functions()
    assert len(found) > 500, "the functions are not seen"
    long = [f"{path}: {name[:80]} has {lines} lines" for path, name, lines in found if lines > MOST_OF_A_FUNCTION]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("folder", [PYTHON, CPP], ids=["triton_kernels", "csrc"])
def test_no_file_is_too_long(folder):
    lines = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in folder}
    assert not {path: n for path, n in lines.items() if n > MOST_OF_A_FILE}


def test_functions_are_measured():
    """Braces of namespaces, types, literals and comments are none of a function's; a brace in a macro is not seen."""
    text = """
#define OPEN {
namespace a {
struct S {
  int x = 1;
  int values[2] = {1, 2};
  S(int a, int b = {}) : x(a), values{a, b} {
    // a comment with {
  }
  int get() const {
    const char* s = "}";
    if (x) { return '{'; }
    return x;
  }
};
template <class T>
static int twice(T v,
                 int w) {
  return [&] {
    return v;
  }();
}
extern "C" {
int declared(int);
}
}
"""
    assert list(cpp_functions(text)) == [
        ("S(int a, int b = {}) : x(a), values", 3),
        ("int get() const", 5),
        ("template <class T> static int twice(T v, int w)", 7),
    ]
    assert list(python_functions("def f(\n  a,\n):\n  def g():\n    return a\n  return g\n")) == [("f", 6), ("g", 2)]
