"""The reference as Markdown, from signatures and docstrings.

The source is read and not imported, so that every version of Python gives the same text.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import cast

import griffe

__all__ = ("as_markdown", "item", "reference")

SOURCE = Path(__file__).parent.parent / "src"
WIDTH = 100
ROLE = re.compile(r":(?:class|meth|func|mod|attr|data|exc):`~?(?P<path>[^`]+)`")
SINGLE_QUOTES = re.compile(r"'([^'\"]*)'")
LISTS = {
    griffe.DocstringSectionKind.parameters: "`{0.name}`",
    griffe.DocstringSectionKind.attributes: "`{0.name}`",
    griffe.DocstringSectionKind.raises: "raises `{0.annotation}`",
    griffe.DocstringSectionKind.returns: "returns",
}
"""How an element of each kind of list in a docstring begins."""
SHOWN_WITH_SUBCLASSES = frozenset({"telex.connection_state.StatefulConnection", "telex.testing.calling.CallMethods"})
"""Bases that have no page of their own: their members stand with those of the subclass."""
LITERAL_BLOCK = re.compile(r"^(?P<before>.*)::\n\n(?P<code>(?: +[^\n]*\n|\n)+)", re.MULTILINE)


def reference(path: str, *, only: Collection[str] | None = None, without: Collection[str] = ()) -> str:
    """The Markdown for ``path``: a module, a class with its members, or a function.

    :param only: the members to show; ``()`` shows none.
    :param without: the members to leave out.
    """
    subject = load()[path.removeprefix("telex.")]
    if isinstance(subject, griffe.Alias):
        subject = subject.final_target
    unknown = {*(only or ()), *without} - {member.name for member in members_of(subject)}
    if unknown:
        raise LookupError(f"{path} has no {', '.join(sorted(unknown))}")
    members = [each for each in shown(subject, always=only or ()) if only is None or each.name in only]
    members = [each for each in members if each.name not in without]
    parts = described(subject, level=2, title=subject.name) if not isinstance(subject, griffe.Module) else iter(())
    level = 2 if isinstance(subject, griffe.Module) else 3
    return "\n\n".join([*parts, *documented(members, subject, level)])


@cache
def load() -> griffe.Module:
    """The package, read and not imported."""
    package = griffe.load("telex", search_paths=[SOURCE], docstring_parser="sphinx", allow_inspection=False)
    return cast("griffe.Module", package)


def shown(subject: griffe.Object, always: Collection[str] = ()) -> Iterator[griffe.Object]:
    """The public members with a docstring, and those named, in the order of the source."""
    for member in members_of(subject):
        name = member.name
        if not name.startswith("_") and (member.has_docstring or name in always):
            yield member


def members_of(subject: griffe.Object) -> list[griffe.Object]:
    """The members, and those of the bases that no page shows by themselves."""
    bases = subject.resolved_bases if isinstance(subject, griffe.Class) else []
    inherited = [
        member
        for base in bases
        if base.path in SHOWN_WITH_SUBCLASSES
        for member in members_of(cast("griffe.Class", base))
    ]
    own = [member for member in subject.members.values() if isinstance(member, griffe.Object)]
    names = {member.name for member in own}
    return [member for member in inherited if member.name not in names] + own


def documented(members: list[griffe.Object], owner: griffe.Object, level: int) -> Iterator[str]:
    """Attributes as one list, classes and functions each under a heading of their own."""
    attributes = [each for each in members if isinstance(each, griffe.Attribute)]
    if attributes:
        yield "\n".join(map(as_item, attributes))
    prefix = "" if isinstance(owner, griffe.Module) else f"{owner.name}."
    for member in members:
        if not isinstance(member, griffe.Attribute):
            yield from described(member, level=level, title=f"{prefix}{member.name}")
            if isinstance(member, griffe.Class):
                yield from documented(list(shown(member)), member, level + 1)


def described(subject: griffe.Object, *, level: int, title: str) -> Iterator[str]:
    """The heading, the signature and the docstring of a class or function."""
    yield f"{'#' * level} `{title}`"
    yield "```python\n" + double_quoted("\n".join(signatures_of(subject))) + "\n```"
    yield from prose(subject)
    if isinstance(subject, griffe.Class) and (initialiser := initialiser_of(subject)) is not None:
        yield from prose(initialiser)


def initialiser_of(subject: griffe.Class) -> griffe.Function | None:
    """Its ``__init__``, unless a base with a page of its own has it."""
    found = next((member for member in members_of(subject) if member.name == "__init__"), None)
    return found if isinstance(found, griffe.Function) else None


def signatures_of(subject: griffe.Object) -> Iterator[str]:
    """How a name is called, or what it stands for."""
    if isinstance(subject, griffe.Class):
        yield from class_signature(subject)
    elif isinstance(subject, griffe.Function):
        yield from function_signatures(subject)
    elif isinstance(subject, griffe.Attribute):
        yield f"{subject.name} = {subject.value}"


def function_signatures(function: griffe.Function) -> Iterator[str]:
    """How a function is called: once, or once for each overload."""
    kinds = {"classmethod", "staticmethod", "contextmanager", "asynccontextmanager"}
    marks = [f"@{mark.value}" for mark in function.decorators if str(mark.value).rpartition(".")[2] in kinds]
    for each in function.overloads or [function]:
        head = "async def " if "async" in function.labels else "def "
        yield "\n".join([*marks, laid_out(head + function.name, each.parameters, each.returns)])


def class_signature(subject: griffe.Class) -> Iterator[str]:
    """How the class is made, or else its bases and those fields that have no docstring and so no other place."""
    initialiser = initialiser_of(subject)
    if initialiser is not None:
        yield laid_out(subject.name, initialiser.parameters, None)
        return
    public_bases = [str(base) for base in subject.bases if not str(base).startswith("_")]
    bases = [*public_bases, *(f"{name}={value}" for name, value in subject.keywords.items())]
    fields = [
        f"    {name}: {each.annotation}" + (f" = {each.value}" if each.value is not None else "")
        for name, each in subject.members.items()
        if isinstance(each, griffe.Attribute) and each.annotation is not None and each.docstring is None
        if not name.startswith("_") and "property" not in each.labels and "ClassVar" not in str(each.annotation)
    ]
    head = f"class {subject.name}({', '.join(bases)})" if bases else f"class {subject.name}"
    yield "\n".join([f"{head}:", *fields]) if fields else head


def laid_out(head: str, parameters: Iterable[griffe.Parameter], returns: object) -> str:
    """A signature on one line, or with one parameter to a line."""
    words = list(with_separators([each for each in parameters if each.name not in {"self", "cls"}]))
    end = f") -> {returns}" if returns is not None else ")"
    line = f"{head}({', '.join(words)}{end}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{head}(", *(f"    {word}," for word in words), end])


def with_separators(parameters: list[griffe.Parameter]) -> Iterator[str]:
    """The parameters as written, with ``/`` and ``*`` where they stand in the source."""
    kinds = griffe.ParameterKind
    starred = False
    for index, each in enumerate(parameters):
        if each.kind is kinds.keyword_only and not starred:
            starred = True
            yield "*"
        starred = starred or each.kind is kinds.var_positional
        stars = {kinds.var_positional: "*", kinds.var_keyword: "**"}.get(each.kind or kinds.positional_or_keyword, "")
        annotation = f": {each.annotation}" if each.annotation is not None else ""
        has_default = each.default is not None and not stars
        default = f" = {each.default}" if has_default and annotation else f"={each.default}" if has_default else ""
        yield f"{stars}{each.name}{annotation}{default}"
        following = parameters[index + 1].kind if index + 1 < len(parameters) else None
        if each.kind is kinds.positional_only and following is not kinds.positional_only:
            yield "/"


def prose(subject: griffe.Object) -> Iterator[str]:
    """The docstring: its text, then parameters, results and errors as one list."""
    texts, items = parsed(subject)
    yield from texts
    if items:
        yield "\n".join(map(item, items))


def parsed(subject: griffe.Object) -> tuple[list[str], list[str]]:
    """The texts of a docstring, and what it says of parameters, results and errors."""
    texts: list[str] = []
    items: list[str] = []
    for section in subject.docstring.parsed if subject.docstring is not None else ():
        if section.kind is griffe.DocstringSectionKind.text:
            texts.append(as_markdown(section.value))
        else:
            name = LISTS[section.kind]
            items += [f"{name.format(each)}: {as_markdown(flat(each.description))}" for each in section.value]
    return texts, items


def as_item(attribute: griffe.Attribute) -> str:
    """One attribute of a class or module: its name, its type or value, and its text."""
    annotation = str(attribute.annotation or "")
    kind = f": {annotation}" if annotation and annotation not in {"TypeAlias", "Final"} else ""
    value = f" = {attribute.value}" if isinstance(attribute.parent, griffe.Module) else ""
    texts, items = parsed(attribute)
    first, *more = "\n\n".join(texts).split("\n\n")
    name = f"`{double_quoted(f'{attribute.name}{kind}{value}')}`"
    lines = [item(f"{name}: {flat(first)}" if first else name)]
    lines += [textwrap.indent(f"\n{text}", "    ") for text in more]
    return "\n".join([*lines, *(textwrap.indent(item(each), "    ") for each in items)])


def flat(text: str) -> str:
    """``text`` on one line."""
    return " ".join(text.split())


def double_quoted(code: str) -> str:
    """``code`` with the quotes that our formatter writes."""
    return SINGLE_QUOTES.sub(r'"\1"', code)


def item(text: str) -> str:
    """A list item, wrapped as the pages are."""
    return textwrap.fill(
        text, 120, initial_indent="- ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )


def as_markdown(text: str) -> str:
    """The reStructuredText in our docstrings as Markdown: roles and literals as code, literal blocks as fences."""
    text = ROLE.sub(lambda role: f"`{public(role['path'])}`", text).replace("``", "`")
    return LITERAL_BLOCK.sub(fenced, f"{text}\n").strip()


def public(path: str) -> str:
    """``path`` without the modules of ours that it begins with."""
    parts = path.split(".")
    while len(parts) > 1 and parts[0].islower() and path.startswith("telex."):
        parts.pop(0)
    return ".".join(parts)


def fenced(block: re.Match[str]) -> str:
    """A literal block of reStructuredText as a fenced one."""
    before = f"{block['before']}:\n\n" if block["before"].strip() else ""
    code = textwrap.dedent(block["code"]).strip("\n")
    return f"{before}```python\n{code}\n```\n\n"
