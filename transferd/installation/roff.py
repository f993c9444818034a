"""Manual pages in roff (man(7)), made from the grammars and from the commented configuration."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence

from transferd import __version__

#: Last sections of a page: heading and paragraphs. A paragraph `term:` and a line is a definition.
Closing = Sequence[tuple[str, Sequence[str]]]

_SECTION = re.compile(r"\[(\w+)\]\s*(?:#\s*(.*))?")
_KEY = re.compile(r"(\w+) = (.*?)\s+# (.*)")


def page(parser: argparse.ArgumentParser, section: int, closing: Closing) -> str:
    """Return the page of a program."""
    title = parser.prog.upper()
    description = parser.description or ""
    lines = [
        *_head(parser.prog, title, section, description),
        ".SH SYNOPSIS",
        *_synopsis(parser),
        ".SH DESCRIPTION",
        escaped(description),
    ]
    options = list(_options(parser))
    if options:
        lines += [".SH OPTIONS", *options]
    commands = list(_commands(parser))
    if commands:
        lines += [".SH COMMANDS", *commands]
    for heading, paragraphs in closing:
        lines += [f".SH {heading}", *_paragraphs(paragraphs)]
    return "\n".join(lines) + "\n"


def configuration_page(text: str, closing: Closing) -> str:
    """Return the page of the configuration, made from its commented default *text*."""
    description = "configuration of the background transfer service"
    head, _, body = text.partition("\n[")
    lines = [
        *_head("transferd.toml", "TRANSFERD.TOML", 5, description),
        ".SH DESCRIPTION",
        *_prose(re.sub(r"(?m)^# ?", "", head)),
    ]
    for line in ("[" + body).splitlines():
        if match := _SECTION.fullmatch(line):
            lines += [f'.SH "[{escaped(match[1])}]"', *([escaped(match[2])] if match[2] else [])]
        elif match := _KEY.fullmatch(line):
            lines += [".TP", f"\\fB{escaped(match[1])}\\fR = {escaped(match[2])}"]
            lines += [escaped(match[3])]
    for heading, paragraphs in closing:
        lines += [f".SH {heading}", *_paragraphs(paragraphs)]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Return *text* for roff to print as it is: no line a command, every hyphen a minus."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")
    text = text.replace("…", "\\|.\\|.\\|.\\&").replace("`", "\\(ga").replace("^", "\\(ha")
    return re.sub(r"(?m)^(?=[.'])", r"\\&", text).replace("~", "\\(ti")


def _head(name: str, title: str, section: int, description: str) -> list[str]:
    summary = description.partition(":")[0].rstrip(".")
    summary = summary[:1].lower() + summary[1:]
    return [
        f'.TH {title} {section} "" "transferd {__version__}"',
        ".SH NAME",
        f"{escaped(name)} \\- {escaped(summary)}",
    ]


def _synopsis(parser: argparse.ArgumentParser) -> list[str]:
    if _nested(parser):
        return [
            f"\\fB{parser.prog}\\fR \\fICOMMAND\\fR [\\fIOPTION\\fR]{escaped('…')}",
            ".br",
            f"\\fB{parser.prog}\\fR \\fICOMMAND\\fR \\fB\\-\\-help\\fR",
        ]
    words = []
    for action in parser._actions:
        if action.option_strings:
            metavar = f" \\fI{escaped(_metavar(action))}\\fR" if _metavar(action) else ""
            words.append(f"[\\fB{escaped(action.option_strings[-1])}\\fR{metavar}]")
    return [f"\\fB{parser.prog}\\fR", *words]


def _nested(
    parser: argparse.ArgumentParser,
) -> argparse._SubParsersAction[argparse.ArgumentParser] | None:
    found = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return found[0] if found else None


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Each command with its options; one that has commands of its own is replaced by those."""
    nested = _nested(parser)
    if nested is None:
        return
    for command in nested.choices.values():
        if _nested(command) is not None:
            yield from _commands(command)
            continue
        usage = command.format_usage().partition(" ")[2].strip()
        yield f'.SS "{_quoted(escaped(usage))}"'
        yield escaped(command.description or "")
        yield from _options(command)
        if command.epilog:
            yield from _verbatim(command.epilog.partition("\n")[2])


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Each option and argument that says something of itself."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction | argparse._HelpAction):
            continue
        if action.help in (None, argparse.SUPPRESS):
            continue
        yield ".TP"
        yield _term(action)
        yield escaped(str(action.help) % (vars(action) | {"prog": parser.prog}))


def _term(action: argparse.Action) -> str:
    metavar = _metavar(action)
    if not action.option_strings:
        return f"\\fI{escaped(metavar)}\\fR"
    names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in action.option_strings)
    return f"{names} \\fI{escaped(metavar)}\\fR" if metavar else names


def _metavar(action: argparse.Action) -> str:
    """Return how the value of an option is written; "" where it takes none."""
    if action.option_strings and action.nargs == 0:
        return ""
    if isinstance(action.metavar, tuple):
        return " ".join(action.metavar)
    if action.metavar is not None:
        return action.metavar
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return action.dest.upper()


def _paragraphs(paragraphs: Sequence[str]) -> Iterator[str]:
    for index, paragraph in enumerate(paragraphs):
        term, colon, rest = paragraph.partition(":\n")
        if colon:
            yield from (".TP", f"\\fB{escaped(term)}\\fR", escaped(rest))
        else:
            yield from ([".PP"] if index else [])
            yield escaped(paragraph)


def _prose(text: str) -> Iterator[str]:
    for index, paragraph in enumerate(filter(None, map(str.strip, re.split(r"\n\s*\n", text)))):
        yield from ([".PP"] if index else [])
        yield escaped(paragraph)


def _verbatim(text: str) -> list[str]:
    lines = [escaped(line) for line in text.strip("\n").splitlines()]
    return [".PP", ".nf", *lines, ".fi"]


def _quoted(text: str) -> str:
    return text.replace('"', "\\(dq")
