"""What of a source file can change a result: a digest of its syntax tree, without comments and without its modules' names."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable
from importlib.util import resolve_name
from typing import NamedTuple

IGNORED = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
"""Fields of nodes that follow from others or have no effect."""


class Code(NamedTuple):
    """A source file. digest: sha256 of what it does; "" for a file that does nothing. uses: the modules of the project that it
    uses, as often as it does, in an order that does not depend on their names. imports: those that its import statements load,
    packages among them."""

    digest: str
    uses: tuple[str, ...]
    imports: frozenset[str]


def read(source: str | bytes, package: str, is_module: Callable[[str], bool]) -> Code:
    """The code of one file. package: where its relative imports start. is_module: whether a dotted name is a module of the
    project.

    The digest leaves out comments, docstrings and formatting, and the names of the project's modules: an import from one of
    them counts by what it imports, and a name that stands for a module is replaced. Versions of Python that can read the file
    agree on it. Raises SyntaxError.
    """
    tree = ast.parse(source)
    writer = _Writer(package, is_module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            writer.bind(node)
    writer.write(tree)
    objects = sorted(writer.objects.items())  # by the names in the file, whatever order imports are in
    text = "".join([*writer.parts, *(f"{bound}={name};" for (bound, name), _ in objects)])
    digest = hashlib.sha256(text.encode()).hexdigest() if text != "Module()" else ""
    return Code(digest, (*writer.uses, *(module for _, module in objects)), frozenset(writer.imports))


class _Writer:
    """Writes a syntax tree down. modules: name in the file → module. objects: name in the file and in its module → module."""

    def __init__(self, package: str, is_module: Callable[[str], bool]) -> None:
        self.package, self.is_module = package, is_module
        self.modules: dict[str, str] = {}
        self.objects: dict[tuple[str, str], str] = {}
        self.imports: set[str] = set()
        self.parts: list[str] = []
        self.uses: list[str] = []

    def bind(self, node: ast.Import | ast.ImportFrom) -> None:
        """Notes which names an import statement gives to modules of the project, and to what is in them."""
        if isinstance(node, ast.Import):
            for alias in self._split(node)[0]:
                self.imports.add(alias.name)
                whole = alias.name if alias.asname else alias.name.split(".")[0]
                self.modules[alias.asname or whole] = whole
        elif self.is_module(base := self._base(node)):
            self.imports.add(base)
            for alias in node.names:
                name, bound = f"{base}.{alias.name}", alias.asname or alias.name
                if self.is_module(name):
                    self.imports.add(name)
                    self.modules[bound] = name
                else:
                    self.objects[bound, alias.name] = base

    def _base(self, node: ast.ImportFrom) -> str:
        return resolve_name("." * node.level + (node.module or ""), self.package)

    def _split(self, node: ast.Import) -> tuple[list[ast.alias], list[ast.alias]]:
        """Of modules of the project, and of others."""
        own = [alias for alias in node.names if self.is_module(alias.name)]
        return own, [alias for alias in node.names if alias not in own]

    def write(self, node: object) -> None:
        """Class and fields of a node, its parts in turn. Empty fields are left out: not every version of Python has them."""
        if isinstance(node, list):
            self.parts.append("[")
            for item in node:
                self.write(item)
                self.parts.append(",")
            self.parts.append("]")
        elif not isinstance(node, ast.AST):
            self.parts.append(ascii(node))
        elif (module := self._module(node)) is not None:
            self.parts.append("@")
            self.uses.append(module)
        else:
            self.parts.append(f"{type(node).__name__}(")
            for name in node._fields:
                value = self._kept(node, getattr(node, name, None))
                if name not in IGNORED and value is not None and value != []:
                    self.parts.append(f"{name}=")
                    self.write(value)
            self.parts.append(")")

    def _kept(self, node: ast.AST, value: object) -> object:
        """A field without the statements that do nothing and the imports that are in `modules` and `objects`."""
        if isinstance(node, ast.Import):
            return self._split(node)[1]
        if isinstance(node, ast.JoinedStr):  # Python 3.12 ends some of them with an empty string
            return [part for part in node.values if not (isinstance(part, ast.Constant) and part.value == "")]
        if isinstance(value, list):
            return [item for item in value if not self._is_left_out(item)]
        return value

    def _is_left_out(self, item: object) -> bool:
        match item:
            case ast.Expr(value=ast.Constant(value=str())):
                return True
            case ast.Import():
                return not self._split(item)[1]
            case ast.ImportFrom():
                return self.is_module(self._base(item))
        return False

    def _module(self, node: ast.AST) -> str | None:
        """The module that an expression such as ``fitting`` or ``benchmarks.fitting`` stands for."""
        if isinstance(node, ast.Name):
            return self.modules.get(node.id)
        if isinstance(node, ast.Attribute):
            package = self._module(node.value)
            if package is not None and self.is_module(name := f"{package}.{node.attr}"):
                return name
        return None
