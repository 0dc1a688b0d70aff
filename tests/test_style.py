"""Functions are short enough to be read at one go."""

import ast
from pathlib import Path

import pytest

import skvae

MOST_LINES = 60

FOLDERS = [Path(skvae.__file__).parent, Path(__file__).parents[1] / "examples"]

FILES = {str(path.relative_to(folder.parent)): path for folder in FOLDERS for path in sorted(folder.rglob("*.py"))}


def lines_of_code(source):
    """Yield each function, at any depth, and its lines but for docstrings, comments and blank lines."""
    lines = source.splitlines()
    nodes = list(ast.walk(ast.parse(source)))
    functions = [node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    documented = [node for node in nodes if isinstance(node, ast.ClassDef) or node in functions]
    texts = [node.body[0] for node in documented if ast.get_docstring(node) is not None]
    left_out = {number for text in texts for number in range(text.lineno, text.end_lineno + 1)}
    left_out |= {number for number, line in enumerate(lines, 1) if not line.strip() or line.strip().startswith("#")}
    for node in functions:
        yield node.name, len(set(range(node.lineno, node.end_lineno + 1)) - left_out)


def test_lines_of_code_are_counted():
    source = '''
def outer(
    x,
):
    """Do it.

    In two paragraphs.
    """
    # A comment.

    def inner():
        """Do a part of it."""
        return x  # with a comment

    return inner
'''
    assert dict(lines_of_code(source)) == {"outer": 6, "inner": 2}


@pytest.mark.parametrize("file", FILES)
def test_no_function_is_long(file):
    long = {name: n_lines for name, n_lines in lines_of_code(FILES[file].read_text()) if n_lines > MOST_LINES}
    assert not long, f"{file} has functions of more than {MOST_LINES} lines of code"
