"""The README's table of upstream's names, against upstream's package and ours."""

import ast
import importlib
import inspect
import pathlib
import re
import textwrap
import types

import pytest

import pigeonfs.compat

upstream = pytest.importorskip("katzenpost_thinclient")

README = pathlib.Path(__file__).parents[1] / "README.md"
MODULES = ["", ".core", ".pigeonhole", ".transport", ".transport.tcp", ".transport.unix"]


def members(kind):
    """The public names of a class: those that it has, and those that its methods set on an object."""
    names = {name for name in vars(kind) if not name.startswith("_")} | set(getattr(kind, "__dataclass_fields__", ()))
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(kind)))):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        for target in targets:
            for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(name, ast.Attribute) and isinstance(name.value, ast.Name) and name.value.id == "self":
                    names.add(name.attr)
    return {name for name in names if not name.startswith("_")}


def names_of_upstream():
    found = {}
    for suffix in MODULES:
        module = importlib.import_module(upstream.__name__ + suffix)
        for name, value in vars(module).items():
            made_there = getattr(value, "__module__", upstream.__name__).startswith(upstream.__name__)
            if name.startswith("_") or isinstance(value, types.ModuleType) or not made_there:
                continue
            found[name] = value
            if inspect.isclass(value):
                found.update({f"{name}.{member}": getattr(value, member, None) for member in members(value)})
    return found


def table():
    """Each name's verdict."""
    told = {}
    for line in README.read_text().splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 2 and cells[0].startswith("`"):
            for name in re.findall(r"`([^`]+)`", cells[0]):
                assert name not in told, f"{name} is in the table twice"
                told[name] = cells[1]
    return told


def ours(name):
    head, _, member = name.partition(".")
    for module in (pigeonfs.compat, pigeonfs.compat.core, pigeonfs.compat.pigeonhole, pigeonfs.compat.transport):
        if hasattr(module, head):
            found = getattr(module, head)
            return found if not member else getattr(found, member, None)
    raise AssertionError(f"pigeonfs.compat has no {name}")


def has(name):
    head, _, member = name.partition(".")
    return not member or hasattr(ours(head), member) or member in members_of_ours(ours(head))


def members_of_ours(kind):
    return set().union(*(members(base) for base in kind.__mro__ if base.__module__.startswith("pigeonfs")))


def test_every_name_of_upstream_is_in_the_table_and_none_else():
    told, there = set(table()), set(names_of_upstream())
    assert not there - told, f"not in the table: {sorted(there - told)}"
    assert not told - there, f"upstream has no {sorted(told - there)}"


def test_what_is_the_same_can_be_called_in_the_same_way():
    theirs = names_of_upstream()
    for name, verdict in table().items():
        if not verdict.startswith("same"):
            continue
        assert has(name), name
        value = theirs[name]
        if isinstance(value, (int, str)):
            assert ours(name) == value, name
        if inspect.isclass(value) and issubclass(value, Exception):
            bases = [base.__name__ for base in value.__mro__]
            assert [base.__name__ for base in ours(name).__mro__] == bases, name
        if inspect.isfunction(value) or inspect.isclass(value) and value.__init__ is not Exception.__init__:
            wanted, found = (inspect.signature(callable).parameters for callable in (value, ours(name)))
            assert [*wanted] == [*found][: len(wanted)], name
            for parameter in wanted.values():
                mine = found[parameter.name]
                assert mine.kind == parameter.kind, (name, parameter)
                assert mine.default == parameter.default or verdict != "same", (name, parameter)
            for further in [*found.values()][len(wanted) :]:
                assert further.kind == further.KEYWORD_ONLY and further.default is not further.empty, (name, further)
            if inspect.isfunction(value):
                assert inspect.iscoroutinefunction(ours(name)) == inspect.iscoroutinefunction(value), name


def test_what_is_not_there_is_not():
    for name, verdict in table().items():
        assert verdict.startswith(("same", "no:")), (name, verdict)
        if verdict.startswith("no:"):
            assert not has(name), name


def test_codes_have_the_same_texts_and_exceptions():
    for code in range(40):
        assert pigeonfs.compat.thin_client_error_to_string(code) == upstream.thin_client_error_to_string(code)
        mine, theirs = (package.error_code_to_exception(code) for package in (pigeonfs.compat, upstream))
        assert (type(mine).__name__, str(mine)) == (type(theirs).__name__, str(theirs))
    reply = {"error_code": 26, "replica_error_code": 10, "failed_envelope_index": 3}
    mine, theirs = (package.copy_reply_to_exception(reply) for package in (pigeonfs.compat, upstream))
    assert (type(mine).__name__, str(mine), vars(mine)) == (type(theirs).__name__, str(theirs), vars(theirs))
