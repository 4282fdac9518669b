"""JSON as strangers send it: decoded once, and refused wherever a later floor could not bear it."""

from dataclasses import dataclass
from json import loads
from typing import Any

import msgspec

from graph.refusal import ErrorCode, Refused

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Ask:
    """One GraphQL request, of the right shape; its document has not been read yet."""

    query: str | None  # None: the document is named by its id alone
    operation_name: str | None
    variables: dict[str, Any]
    document_id: str | None = None
    is_apq: bool = False  # the id came as automatic persisted queries write it


def bad_input(message: str) -> Refused:
    """A refusal for what was sent."""
    return Refused(ErrorCode.BAD_INPUT, message)


def decode(raw: bytes | str) -> dict[str, Any]:
    """Read one JSON object. Raises Refused for anything else, and for a key that stands twice."""
    try:
        body = raw.encode() if isinstance(raw, str) else raw
        value = _decode(body)
        if not isinstance(value, dict):
            raise bad_input("Expected a JSON object with the key 'query'; batches are not supported.")
        _refuse_repeated_keys(body, value)
    # UnicodeError and RecursionError come straight from the decoders, ValueError from the second one.
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as error:
        raise bad_input(
            "The body is not JSON that this service can read (UTF-8, no key twice, no number out of range)."
        ) from error
    return value


def ask_of(body: dict[str, Any]) -> Ask:
    """Check the shape of a request. Unknown keys are ignored, as the GraphQL over HTTP specification wants."""
    query, document_id = body.get("query"), body.get("documentId")
    name = body.get("operationName")
    if name is not None and not isinstance(name, str):
        raise bad_input("'operationName' must be a string or null.")
    variables = body.get("variables")
    if variables is not None and not isinstance(variables, dict):
        raise bad_input("'variables' must be an object or null.")
    extensions = body.get("extensions")
    if extensions is not None and not isinstance(extensions, dict):
        raise bad_input("'extensions' must be an object or null.")
    is_apq = document_id is None and "persistedQuery" in (extensions or {})
    if extensions and is_apq:
        document_id = _apq_id(extensions["persistedQuery"])
    if document_id is not None and (not isinstance(document_id, str) or document_id == ""):
        raise bad_input("'documentId' must be a string such as 'sha256:' and 64 hexadecimal digits.")
    if not (isinstance(query, str) and query) and (query is not None or document_id is None):
        raise bad_input("'query' is required and must be a string that holds a GraphQL document, or 'documentId'.")
    return Ask(query, name or None, variables or {}, document_id, is_apq)


def _apq_id(given: Any) -> str:
    """The id that `extensions.persistedQuery` names. Raises Refused."""
    if isinstance(given, dict) and given.get("version") == 1 and isinstance(given.get("sha256Hash"), str):
        return f"sha256:{given['sha256Hash'].lower()}"
    raise bad_input("'extensions.persistedQuery' must hold version 1 and the 'sha256Hash' of a document.")


def _refuse_repeated_keys(body: bytes, value: dict[str, Any]) -> None:
    """Raise ValueError where an object names a key twice: two readers of such a text disagree about its meaning.

    The decoder keeps the last one silently. The value written again has as many colons as the text, in strings and
    behind keys, unless a key was lost: twenty times faster than a decoder with a hook. Only in doubt is the text read
    again, also where a letter below U+0100, and so perhaps a colon, is written by its number.
    """
    # Backwards: that search looks for the needle's first byte, which is rare, and the other one for its last.
    is_numbered = body.rfind(b"\\u00") != -1
    if is_numbered or body.count(b":") != _colons_in(value):
        loads(body, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("repeated key")
    return unique


def _colons_in(value: dict[str, Any]) -> int:
    try:
        return _encode(value).count(b":")
    except OverflowError:  # a whole number beyond 64 bits: decoded, and not written
        return -1


def refuse_unstorable_text(raw: bytes | str, value: Any) -> None:
    """Raise Refused where a string in `value`, decoded from `raw`, holds NUL: Postgres cannot store it.

    Strict JSON can carry NUL only as an escape, so a text without that escape needs no walk. Lone surrogates never
    come this far: the decoder refuses them.
    """
    found = raw.rfind(b"\\u0000") if isinstance(raw, bytes) else raw.rfind("\\u0000")
    if found == -1:
        return
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            refuse_unstorable(item)
        elif isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def refuse_unstorable(text: str) -> None:
    """Raise Refused for one string that holds NUL or a lone surrogate."""
    if "\0" in text or (not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text)):
        raise bad_input("Text must not hold NUL or a lone surrogate.")
