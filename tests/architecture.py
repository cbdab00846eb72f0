"""The rules of docs/architecture: layers, the import graph, names, lengths and docstrings. Only syntax trees are read.

`violations` gives every violation in a tree below a root as (rule, file, message).
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

LAYERS = (  # lowest first; imports go down only, or stay inside one folder
    ("core",),
    ("merge", "metrics"),
    ("checkpoints", "records", "lm"),
    ("tasks", "training", "privacy"),
    ("evaluation",),
    ("selection", "reporting", "tracking"),
    ("cli",),
)
LAYER_OF = {folder: layer for layer, folders in enumerate(LAYERS) for folder in folders}
MERGE_PACKAGES = {"torch", "numpy", "scipy", *sys.stdlib_module_names}
ONLY_IN = {  # third-party package: prefixes of the files that may import it
    "altair": ("patientdx/reporting/",),
    "hydra": ("run.py", "patientdx/api.py", "patientdx/cli/", "patientdx/evaluation/config/"),
    "matplotlib": (),
    "omegaconf": ("run.py", "patientdx/cli/", "patientdx/evaluation/config/"),
    "pydantic": (
        "patientdx/core/validation.py",
        "patientdx/evaluation/config/",
        "patientdx/checkpoints/record_schema.py",
    ),
    "rich": ("patientdx/api.py", "patientdx/cli/", "patientdx/reporting/"),
    "sklearn": ("patientdx/privacy/", "patientdx/training/"),
    "trackio": ("patientdx/tracking/",),
    "vllm": ("patientdx/lm/vllm.py",),
    "wandb": ("patientdx/tracking/",),
}
LAZY = {"trackio", "vllm", "wandb"}  # imported inside a function, so that a run without them does not need them
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "base", "common", "misc"}
FILE_LINES, FUNCTION_LINES = 350, 60
BANNED = {
    "asked",
    "wanted",
    "found",
    "one",
    "own",
    "told",
    "said",
    "place",
    "given",
    "opening",
    "evidence",
    "made_of",
    "shares",
    "facts",
    "whole",
    "two",
    "several",
    "pointers",
    "moved",
    "survivors",
    "tally",
    "survey",
    "graded",
    "ranked",
    "generated",
    "outline",
    "companions",
    "halved",
    "behind",
    "claimed",
    "alone",
    "agreed",
    "gathered",
    "together",
    "turn",
    "lap",
    "leading",
    "marks",
    "sheet",
    "origins",
    "faults",
    "discloses",
    "reverses",
    "at_once",
    "warm_up",
    "Refusal",
    "Point",
    "Ingredients",
    "Worked",
    "Looked",
    "Outline",
    "Clock",
    "TOGETHER",
    "SHORT",
    "SAID",
}
BANNED_MODULES = BANNED | {"answers", "seen", "kept", "filled", "leave", "refusal", "choice"}
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


class Violation(NamedTuple):
    """A broken rule; `file` is relative to the root, empty where a rule concerns several files."""

    rule: str
    file: str
    message: str


@dataclass(frozen=True)
class Source:
    """One Python file below a root."""

    path: Path  # relative to the root
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def folder(self) -> str:
        """Its folder in patientdx; run.py and api.py count as cli, the package's __init__ as a folder of its own."""
        parts = self.path.parts
        if parts[0] != "patientdx":
            return "cli" if parts == ("run.py",) else parts[0]
        if len(parts) > 2:
            return parts[1]
        return "cli" if parts[1] == "api.py" else "patientdx"

    @property
    def in_package(self) -> bool:
        """Whether the rules of the package apply."""
        return self.path.parts[0] in ("patientdx", "run.py")

    def imports(self) -> Iterator[tuple[str, ast.Import | ast.ImportFrom]]:
        """(dotted name, node) of every import; relative ones in full, `from a import b` as a.b."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((alias.name, node) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                package = self.path.parts[: -node.level] if node.level else ()
                start = ".".join([*package, *([node.module] if node.module else [])])
                yield from ((f"{start}.{alias.name}", node) for alias in node.names)


def violations(root: Path) -> list[Violation]:
    """All violations in run.py, patientdx/, experiments/ and tests/ below `root`."""
    sources = python_files(root)
    broken = []
    for source in sources:
        checks = [*lengths(source), *empty_names(source)]
        if source.in_package:
            checks += [*packages(source), *layers(source), *docstrings(source), *banned_words(source)]
        broken += [Violation(rule, source.path.as_posix(), message) for rule, message in checks]
    package = {module_name(source.path): source for source in sources if source.in_package}
    return broken + [Violation(*found) for found in graph_rules(package)]


def python_files(root: Path) -> list[Source]:
    """The files that the rules apply to, by path."""
    folders = [root / name for name in ("patientdx", "experiments", "tests")]
    paths = [root / "run.py", *(path for folder in folders for path in folder.rglob("*.py"))]
    return [Source(path.relative_to(root), path.read_text(encoding="utf-8")) for path in sorted(paths) if path.exists()]


def module_name(path: Path) -> str:
    """Dotted name of a file."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def packages(source: Source) -> Iterator[tuple[str, str]]:
    """Third-party packages in files that they do not belong in, or imported too early."""
    inside = {id(node) for body in ast.walk(source.tree) if isinstance(body, FUNCTIONS) for node in ast.walk(body)}
    for name, node in source.imports():
        package, where = name.split(".")[0], f"line {node.lineno}: imports {name}"
        allowed = ONLY_IN.get(package)
        if allowed is not None and not source.path.as_posix().startswith(allowed or ("-",)):
            yield "package", f"{where}, which belongs in {', '.join(allowed) or 'no file of the package'}"
        if package in LAZY and id(node) not in inside:
            yield "package", f"{where} at the top; import it inside the function that needs it"
        if source.folder == "merge" and package not in {*MERGE_PACKAGES, "patientdx"}:
            yield "package", f"{where}; merge imports torch, numpy and scipy only"


def layers(source: Source) -> Iterator[tuple[str, str]]:
    """Imports that go up or across, and modules without a layer."""
    if source.folder not in LAYER_OF and source.path.parts != ("patientdx", "__init__.py"):
        loose = len(source.path.parts) == 2
        yield "layer", "is loose in patientdx/" if loose else f"{source.folder} has no layer"
        return
    for name, node in source.imports():
        parts = name.split(".")
        where = f"line {node.lineno}: imports {name}"
        if parts[0] in ("experiments", "tests"):
            yield "layer", f"{where}; the package imports nothing of it"
        if parts[0] != "patientdx" or len(parts) < 2 or parts[1] not in LAYER_OF or parts[1] == source.folder:
            continue
        here, there = LAYER_OF.get(source.folder, -1), LAYER_OF[parts[1]]
        if there > here:
            yield "layer", f"{where}, which is up: from layer {here} to {there}"
        elif there == here or source.folder == "merge":
            yield "layer", f"{where}, which is across: {source.folder} does not import {parts[1]}"


def graph_rules(package: Mapping[str, Source]) -> Iterator[tuple[str, str, str]]:
    """Cycles among files, and chains of folders that are too long."""
    graph = import_graph(package)
    for component in cycles(graph):
        files = sorted(package[name].path.as_posix() for name in component)
        yield "cycle", files[0], f"a cycle of imports: {', '.join(files)}"
    folders: dict[str, set[str]] = {source.folder: set() for source in package.values()}
    for name, targets in graph.items():
        folders[package[name].folder] |= {package[other].folder for other in targets} - {package[name].folder}
    if not cycles(folders) and (depth := longest_chain(folders)) > len(LAYERS) + ("patientdx" in folders):
        yield "chain", "", f"a chain of {depth} folders, more than {len(LAYERS)}"


def import_graph(package: Mapping[str, Source]) -> dict[str, set[str]]:
    """Module to the modules that it imports, wherever in its file; a name inside a module counts as the module."""
    graph: dict[str, set[str]] = {}
    for module, source in package.items():
        graph[module] = set()
        for name, _ in source.imports():
            while name and name not in package:
                name = name.rpartition(".")[0]
            graph[module] |= {name} - {"", module, "patientdx"}
    return graph


def cycles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one node."""
    reachable = {node: _reachable(graph, node) for node in graph}
    components = {frozenset(other for other in reachable[node] if node in reachable[other]) for node in graph}
    return sorted((set(component) for component in components if component), key=sorted)


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    visited: set[str] = set()
    queue = [start]
    while queue:
        for node in graph.get(queue.pop(), set()) - visited:
            visited.add(node)
            queue.append(node)
    return visited


def longest_chain(graph: Mapping[str, set[str]]) -> int:
    """Nodes on the longest path of a graph without cycles."""
    depths: dict[str, int] = {}

    def depth(node: str) -> int:
        if node not in depths:
            depths[node] = 1 + max((depth(other) for other in graph[node]), default=0)
        return depths[node]

    return max(map(depth, graph), default=0)


def lengths(source: Source) -> Iterator[tuple[str, str]]:
    """Files and functions that are too long."""
    lines = source.text.count("\n")
    if lines > FILE_LINES:
        yield "length", f"{lines} lines, more than {FILE_LINES}"
    for node in ast.walk(source.tree):
        if isinstance(node, FUNCTIONS) and node.end_lineno - node.lineno + 1 > FUNCTION_LINES:
            yield "length", f"{node.name} has {node.end_lineno - node.lineno + 1} lines, more than {FUNCTION_LINES}"


def empty_names(source: Source) -> Iterator[tuple[str, str]]:
    """Folders and modules whose name says nothing."""
    parts = source.path.with_suffix("").parts
    yield from (("name", f"{part} says nothing as a name") for part in parts if part in EMPTY_NAMES)


def banned_words(source: Source) -> Iterator[tuple[str, str]]:
    """Banned words as names of parameters, variables, attributes of self, functions, classes and modules."""
    if (stem := source.path.stem) in BANNED_MODULES:
        yield "word", f"the module is called {stem}"
    for node in ast.walk(source.tree):
        name = None
        if isinstance(node, FUNCTIONS | ast.ClassDef | ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
            name = node.name
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.alias):
            name = node.asname
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            name = node.attr
        if name and name.lstrip("_") in BANNED:
            yield "word", f"line {getattr(node, 'lineno', 0)}: a name is {name}"


def docstrings(source: Source) -> Iterator[tuple[str, str]]:
    """A module, or a public function, class or method, without a docstring."""
    if ast.get_docstring(source.tree) is None:
        yield "docstring", "the module has no docstring"
    for node in source.tree.body:
        members = node.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_") else []
        for item in (node, *members):
            public = isinstance(item, FUNCTIONS | ast.ClassDef) and not item.name.startswith("_")
            if public and ast.get_docstring(item) is None:
                yield "docstring", f"{item.name} has no docstring"
