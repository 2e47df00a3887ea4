"""The table of close codes for the pages, JavaScript and TypeScript, from :mod:`telex.protocol.close_codes`."""

from __future__ import annotations

from typing import Final

from telex.protocol.close_codes import CLOSE_CODES, OTHERWISE, RANGES, AfterClose

__all__ = ("as_javascript", "as_markdown", "as_typescript")

WORDS: Final[dict[AfterClose, str]] = {
    "done": "nothing: the server has finished",
    "never": "report it; do not connect again",
    "refresh": "get a new token, then try once",
    "retry_after": "wait as long as `retry-after=` in the reason says; without it, back off",
    "back_off": "back off: connect again after a random time that grows",
    "application": "the code is the application's: report it; do not connect again",
}


def as_markdown() -> str:
    """The rows, then the ranges."""
    rows = [(str(row.code), row.meaning, row.after) for row in CLOSE_CODES.values()]
    ranges = [(f"{each.first} to {each.last}", "Any other code in this range", each.after) for each in RANGES]
    rows = [*rows, *ranges, ("any other", "", OTHERWISE)]
    lines = [f"| {code} | {meaning} | {WORDS[after]} |" for code, meaning, after in rows]
    return "\n".join(["| code | meaning | what a client does |", "|---|---|---|", *lines])


def as_javascript() -> str:
    """The codes of each action, and the function that finds the action of a code."""
    code_lines = "\n".join(f"  {after}: {listed}," for after, listed in _codes_by_action().items())
    range_lines = "\n".join(f'  [{each.first}, {each.last}, "{each.after}"],' for each in RANGES)
    return f"""\
const CLOSE_CODES = {{
{code_lines}
}};
const RANGES = [
{range_lines}
];

function afterClose(code) {{
  const known = Object.keys(CLOSE_CODES).find((after) => CLOSE_CODES[after].includes(code));
  return known ?? RANGES.find(([first, last]) => first <= code && code <= last)?.[2] ?? "{OTHERWISE}";
}}"""


def as_typescript() -> str:
    """The same for the TypeScript client."""
    code_lines = "\n".join(f"  {after}: {listed}," for after, listed in _codes_by_action().items())
    range_lines = "\n".join(f'  [{each.first}, {each.last}, "{each.after}"],' for each in RANGES)
    return f"""\
const CLOSE_CODES: Partial<Record<AfterClose, number[]>> = {{
{code_lines}
}};
const RANGES: [number, number, AfterClose][] = [
{range_lines}
];

export function afterClose(code: number): AfterClose {{
  for (const after in CLOSE_CODES) {{
    if (CLOSE_CODES[after as AfterClose]!.includes(code)) return after as AfterClose;
  }}
  return RANGES.find(([first, last]) => first <= code && code <= last)?.[2] ?? "{OTHERWISE}";
}}"""


def _codes_by_action() -> dict[AfterClose, list[int]]:
    codes: dict[AfterClose, list[int]] = {}
    for row in CLOSE_CODES.values():
        codes.setdefault(row.after, []).append(row.code)
    return codes
