"""Documents that strangers send to hang, crowd or confuse a service, each with the code it is refused with.

They are written for the toy schema. None: the document is sound, only odd, and is answered.
"""

from graphql import get_introspection_query


def bomb(levels: int, width: int = 2) -> str:
    """Fragments of which each spreads the next one `width` times: width^levels fields."""
    spreads = "".join(f"fragment F{n} on Pupil {{ {f'...F{n + 1} ' * width}}} " for n in range(levels))
    return f"{{ pupil {{ ...F0 }} }} {spreads} fragment F{levels} on Pupil {{ name }}"


def chain(levels: int, spreads: int) -> str:
    """A long chain of fragments, walked from many places: little to show, far to go."""
    links = "".join(f"fragment F{n} on Pupil {{ ...F{n + 1} }} " for n in range(levels))
    return f"{{ pupil {{ {'...F0 ' * spreads}}} }} {links} fragment F{levels} on Pupil {{ name }}"


def mesh(count: int) -> str:
    """Fragments that validation compares with each other."""
    parts = (f"fragment F{n} on Pupil {{ name friend {{ name }} }}" for n in range(count))
    return "{ pupil { " + " ".join(f"...F{n}" for n in range(count)) + " } } " + " ".join(parts)


def nested_mesh(count: int) -> str:
    """Fragments that meet again below each field."""
    parts = (f"fragment F{n} on Pupil {{ friend {{ ...F{n + 1} ...F{n + 2} }} }}" for n in range(count))
    ends = f"fragment F{count} on Pupil {{ name }} fragment F{count + 1} on Pupil {{ name }}"
    return f"{{ pupil {{ ...F0 }} }} {' '.join(parts)} {ends}"


HOSTILE: dict[str, tuple[str, str | None]] = {
    "a fragment bomb of 2^40 fields": (bomb(40), "QUERY_TOO_COMPLEX"),
    "a fragment bomb of 2^75 fields": (bomb(75), "QUERY_TOO_COMPLEX"),
    "fragments that spread each other": (
        "{ pupil { ...A } } fragment A on Pupil { ...B } fragment B on Pupil { ...A }", "GRAPHQL_VALIDATION_FAILED"),
    "a fragment within itself, twice a level": (
        "{ pupil { ...A } } fragment A on Pupil { friend { ...A } friend { ...A } }", "GRAPHQL_VALIDATION_FAILED"),
    "more fragments than one compares pairwise": (mesh(120), "QUERY_TOO_COMPLEX"),
    "as many merging fragments as allowed": (mesh(40), None),
    "one field over and over": ("{ pupil { " + "name " * 1_400 + "} }", "QUERY_TOO_COMPLEX"),
    "one field over and over in parents that merge": (
        "{" + "pupil { " * 1 + "".join("friend { " + "name " * 35 + "} " for _ in range(35)) + "} }",
        "QUERY_TOO_COMPLEX"),
    "one field over and over in inline fragments": ("{ pupil { " + "... { name } " * 350 + "} }", "QUERY_TOO_COMPLEX"),
    "1,400 unknown fields": ("{ pupil { " + " ".join(f"b{n}" for n in range(1_400)) + "} }",
                             "GRAPHQL_VALIDATION_FAILED"),
    "400 unknown arguments": ("{ pupil { said(" + " ".join(f"b{n}: 1" for n in range(400)) + ") } }",
                              "GRAPHQL_VALIDATION_FAILED"),
    "too many tokens": ("{ pupil { name } } " * 400, "QUERY_TOO_COMPLEX"),
    "a long comment block": ("#\n" * 30_000 + "{ pupil { name } }", "QUERY_TOO_COMPLEX"),
    "a long text": ("{ pupil { name } }" + " " * 70_000, "QUERY_TOO_COMPLEX"),
    "a long string": ('{ echo(text: "' + "é" * 60_000 + '") }', None),
    "deep fields": ("{ pupil " + "{ friend " * 12 + "{ name }" + "}" * 13, "QUERY_TOO_COMPLEX"),
    "fields as deep as allowed": ("{ pupil " + "{ friend " * 10 + "{ name }" + "}" * 11, None),
    "deep inline fragments": ("{ pupil { " + "... { " * 70 + "name" + " }" * 72, "QUERY_TOO_COMPLEX"),
    "deep lists": ("{ echo(text: " + "[" * 70 + "]" * 70 + ") }", "QUERY_TOO_COMPLEX"),
    "brackets without end": ("{ pupil " * 700, "GRAPHQL_PARSE_FAILED"),
    "lists without end": ("{ echo(text: " + "[" * 1_400, "GRAPHQL_PARSE_FAILED"),
    "31 aliases": ("{" + " ".join(f"a{n}: pupil {{ name }}" for n in range(31)) + "}", "QUERY_TOO_COMPLEX"),
    "31 directives": ("{ pupil { name " + "@include(if: true) " * 31 + "} }", "QUERY_TOO_COMPLEX"),
    "11 operations": (" ".join(f"query Q{n} {{ pupil {{ name }} }}" for n in range(11)), "QUERY_TOO_COMPLEX"),
    "51 variables": ("query(" + " ".join(f"$v{n}: Int" for n in range(51)) + ") { pupil { name } }",
                     "QUERY_TOO_COMPLEX"),
    "infinity as a literal": ("{ pupil { said(score: 1e999) } }", "BAD_INPUT"),
    "an integer of 5,000 digits": ("{ pupil { said(score: " + "9" * 5_000 + ") } }", "BAD_INPUT"),
    "NUL in a string": ('{ echo(text: "\\u0000") }', "BAD_INPUT"),
    "NUL in the text": ("{ echo(text: \"\0\") }", "BAD_INPUT"),
    "a lone surrogate in the text": ('{ echo(text: "\ud800") }', "BAD_INPUT"),
    "an escaped lone surrogate": ('{ echo(text: "\\ud800") }', "GRAPHQL_PARSE_FAILED"),
    "nothing": (" ", "GRAPHQL_PARSE_FAILED"),
    "only a fragment": ("fragment F on Pupil { name }", "BAD_INPUT"),
    "a type definition": ("type T { a: Int }", "BAD_INPUT"),
    "several operations without a name": ("query A { pupil { name } } query B { pupil { name } }", "BAD_INPUT"),
    "a year beyond the calendar": ('{ echo(day: "10000-01-01T00:00:00Z") }', "GRAPHQL_VALIDATION_FAILED"),
    "the introspection of GraphiQL": (get_introspection_query(), None),
    **{f"a fragment bomb of {n} levels": (bomb(n), "QUERY_TOO_COMPLEX") for n in (12, 18, 25, 60, 79)},
    "a fragment bomb of 81 levels": (bomb(81), "QUERY_TOO_COMPLEX"),
    "a fragment bomb ten wide": (bomb(30, width=10), "QUERY_TOO_COMPLEX"),
    "a fragment bomb as large as allowed": (bomb(11), None),
    "a long chain of fragments from 30 places": (chain(75, 30), None),
    "a long chain of fragments from 415 places": (chain(75, 415), None),
    "fragments that meet again below": (nested_mesh(9), None),
    "fragments that meet again far below": (nested_mesh(30), "QUERY_TOO_COMPLEX"),
    "a fragment that nobody has": ("{ pupil { ...Nope } }", "GRAPHQL_VALIDATION_FAILED"),
    "80 fragments that nobody uses": (
        "{ pupil { name } } " + " ".join(f"fragment F{n} on Pupil {{ name }}" for n in range(80)),
        "GRAPHQL_VALIDATION_FAILED"),
    "one fragment twice": (
        "{ pupil { ...F } } fragment F on Pupil { name } fragment F on Pupil { name }", "GRAPHQL_VALIDATION_FAILED"),
    "a fragment on a scalar": ("{ pupil { ...F } } fragment F on String { name }", "GRAPHQL_VALIDATION_FAILED"),
    "10,000 aliases": ("{" + " ".join(f"a{n}: echo" for n in range(10_000)) + "}", "QUERY_TOO_COMPLEX"),
    "aliases in fragments": (
        "{ ...F ...G } " + " ".join(
            f"fragment {f} on Query {{ {' '.join(f'{f}{n}: echo' for n in range(16))} }}" for f in "FG"),
        "QUERY_TOO_COMPLEX"),
    "700 directives": ("{ echo " + "@a " * 700 + "}", "QUERY_TOO_COMPLEX"),
    "30 unknown directives": ("{ echo " + "@a " * 30 + "}", "GRAPHQL_VALIDATION_FAILED"),
    "directives on everything": ("query @a { echo @a ... @a { echo } }", "GRAPHQL_VALIDATION_FAILED"),
    "a selection that is skipped at the root": ("{ echo @skip(if: true) }", None),
    "a deep object": ("{ echo(text: " + "{a: " * 70 + "1" + "}" * 70 + ") }", "QUERY_TOO_COMPLEX"),
    "a deep list within bounds": ("{ echo(text: " + "[" * 50 + "]" * 50 + ") }", "GRAPHQL_VALIDATION_FAILED"),
    "a wide list": ("{ echo(text: [" + "1 " * 1_400 + "]) }", "GRAPHQL_VALIDATION_FAILED"),
    "a deep type of a variable": (
        "query($a: " + "[" * 55 + "String" + "]" * 55 + ") { echo(text: $a) }", "GRAPHQL_VALIDATION_FAILED"),
    "a very deep type of a variable": (
        "query($a: " + "[" * 600 + "String" + "]" * 600 + ") { echo }", "GRAPHQL_PARSE_FAILED"),
    "an integer out of range": ("subscription { ticks(upto: 99999999999) }", "GRAPHQL_VALIDATION_FAILED"),
    "an integer of 300 digits": ("subscription { ticks(upto: " + "9" * 300 + ") }", "GRAPHQL_VALIDATION_FAILED"),
    "minus infinity as a literal": ("{ pupil { said(score: -1e999) } }", "BAD_INPUT"),
    "a number that is nearly nothing": ("{ pupil { said(score: 1e-99999) } }", None),
    "a number that runs into a name": ("{ pupil { said(score: 0xF) } }", "GRAPHQL_PARSE_FAILED"),
    "a number with a leading zero": ("{ pupil { said(score: 007) } }", "GRAPHQL_PARSE_FAILED"),
    "NaN": ("{ pupil { said(score: NaN) } }", "GRAPHQL_VALIDATION_FAILED"),
    "an escape beyond Unicode": ('{ echo(text: "\\u{110000}") }', "GRAPHQL_PARSE_FAILED"),
    "an escape with braces of a surrogate": ('{ echo(text: "\\u{D800}") }', "GRAPHQL_PARSE_FAILED"),
    "half a pair of surrogates": ('{ echo(text: "\\ud83d") }', "GRAPHQL_PARSE_FAILED"),
    "a whole pair of surrogates": ('{ echo(text: "\\ud83d\\ude00") }', None),
    "NUL in an escape with braces": ('{ echo(text: "\\u{0}") }', "BAD_INPUT"),
    "a control character in a string": ('{ echo(text: "\x07") }', None),
    "letters that turn the text around": ('{ echo(text: "\u202eabc\u2066") }', None),
    "an unfinished string": ('{ echo(text: "abc', "GRAPHQL_PARSE_FAILED"),
    "a block string of 60,000 letters": ('{ echo(text: """' + "a\n" * 30_000 + '""") }', None),
    "a block string of quotes": ('{ echo(text: """' + '\\"""' * 10_000 + '""") }', None),
    "an unfinished block string": ('{ echo(text: """' + "a" * 60_000, "GRAPHQL_PARSE_FAILED"),
    "a token of a megabyte": ('{ echo(text: "' + "x" * 1_000_000 + '") }', "QUERY_TOO_COMPLEX"),
    "a name of 60,000 letters": ("{ " + "a" * 60_000 + " }", "GRAPHQL_VALIDATION_FAILED"),
    "an alias of 60,000 letters": ("{ " + "a" * 60_000 + ": echo }", None),
    "only comments": ("# nothing\n" * 400, "GRAPHQL_PARSE_FAILED"),
    "only commas": (", " * 30_000, "GRAPHQL_PARSE_FAILED"),
    "only byte order marks": ("\ufeff" * 20_000, "GRAPHQL_PARSE_FAILED"),
    "only braces": ("{" * 1_000, "GRAPHQL_PARSE_FAILED"),
    "closing braces": ("}" * 1_000, "GRAPHQL_PARSE_FAILED"),
    "an empty selection": ("{ }", "GRAPHQL_PARSE_FAILED"),
    "a binary text": ("".join(chr(n) for n in range(1, 256)), "GRAPHQL_PARSE_FAILED"),
    "an empty selection below": ("{ pupil { } }", "GRAPHQL_PARSE_FAILED"),
    "an empty selection in a fragment": ("{ pupil { ...F } } fragment F on Pupil { }", "GRAPHQL_PARSE_FAILED"),
    "an empty inline fragment": ("{ echo ... { } }", "GRAPHQL_PARSE_FAILED"),
    "an empty mutation": ("mutation { }", "GRAPHQL_PARSE_FAILED"),
    "an empty subscription": ("subscription { }", "GRAPHQL_PARSE_FAILED"),
    "empty brackets of arguments": ("{ echo() }", "GRAPHQL_PARSE_FAILED"),
    "empty brackets of variables": ("query() { echo }", "GRAPHQL_PARSE_FAILED"),
    "no selection of an object": ("{ pupil }", "GRAPHQL_VALIDATION_FAILED"),
    "names of other languages": ("{ __proto__ constructor toString }", "GRAPHQL_VALIDATION_FAILED"),
    "one name for two different fields": ("{ pupil { a: name a: friend { name } } }", "GRAPHQL_VALIDATION_FAILED"),
    "one name for forty different arguments": (
        "{ pupil { " + " ".join(f"said(score: {n})" for n in range(40)) + " } }", "GRAPHQL_VALIDATION_FAILED"),
    "300 arguments of one name": ("{ echo(" + 'text: "a" ' * 300 + ") }", "GRAPHQL_VALIDATION_FAILED"),
    "50 variables that nobody uses": (
        "query(" + " ".join(f"$v{n}: Int" for n in range(50)) + ") { echo }", "GRAPHQL_VALIDATION_FAILED"),
    "one variable fifty times": ("query(" + "$v: Int " * 50 + ") { echo }", "GRAPHQL_VALIDATION_FAILED"),
    "10 operations of one name": ("query Q { echo } " * 10, "BAD_INPUT"),
    "700 operations": ("{ echo }" * 400, "QUERY_TOO_COMPLEX"),
    "a subscription of two fields": ("subscription { a: ticks b: ticks }", "GRAPHQL_VALIDATION_FAILED"),
    "a subscription whose field is a fragment of two": (
        "subscription { ...F } fragment F on Subscription { ticks withdrawn }", "GRAPHQL_VALIDATION_FAILED"),
    "introspection that goes round": (
        "{ __schema { types { " + "fields { type { " * 7 + "name" + " } }" * 7 + " } } }", "GRAPHQL_VALIDATION_FAILED"),
    "introspection that goes round as deep as fields may": (
        "{ __schema { types { " + "fields { type { " * 4 + "name" + " } }" * 4 + " } } }", "GRAPHQL_VALIDATION_FAILED"),
    "introspection through fragments": (
        "{ __schema { types { ...T } } } fragment T on __Type { fields { type { ...U } } } "
        "fragment U on __Type { fields { type { fields { type { fields { type { name } } } } } } }",
        "GRAPHQL_VALIDATION_FAILED"),
    "thirty introspections": (
        "{ " + " ".join(f"a{n}: __schema {{ types {{ name }} }}" for n in range(30)) + " }", None),
}  # fmt: skip
