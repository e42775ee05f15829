"""Reads a large JSON object value by value, with a few MB of it in memory at a time."""

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

# Limit for one value: an entry of the streamed list, or the value of another key.
MAX_VALUE_CHARS = 4 << 20
_CHUNK = 1 << 20
_BLANK = " \t\r\n"
_AFTER = _BLANK + ",:]}"


class JsonStream:
    """The values of a JSON text, one after another. ``on_bytes``: called with the number of bytes
    that were read since the last call.
    """

    def __init__(self, stream: BinaryIO, on_bytes: Callable[[int], None]) -> None:
        self._stream = stream
        self._characters = codecs.getincrementaldecoder("utf-8-sig")()
        self._on_bytes = on_bytes
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._ended = False

    def _fill(self) -> None:
        data = self._stream.read(_CHUNK)
        more = self._characters.decode(data, final=not data)
        self._text, self._at = self._text[self._at :] + more, 0
        self._ended = not data
        self._on_bytes(len(data))

    def _peek(self) -> str:
        """The next character that is not blank, or "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANK:
                    return self._text[self._at]
                self._at += 1
            if self._ended:
                return ""
            self._fill()

    def _take(self, allowed: str) -> str:
        """The next character that is not blank, which must be one of ``allowed``."""
        found = self._peek()
        if not found or found not in allowed:
            raise ValueError(f"expected one of {allowed!r}, got {found or 'the end'!r}")
        self._at += 1
        return found

    def _value(self) -> Any:
        """The next complete value."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if self._ended:
                    raise
            else:
                # A number at the end of the text read so far may be incomplete.
                if self._ended or (end < len(self._text) and self._text[end] in _AFTER):
                    self._at = end
                    return value
            if len(self._text) - self._at > MAX_VALUE_CHARS:
                raise ValueError(f"a value of more than {MAX_VALUE_CHARS} characters, or damage")
            self._fill()

    def _values(self) -> Iterator[Any]:
        """Yields the entries of a list."""
        self._take("[")
        if self._peek() == "]":
            self._take("]")
            return
        while True:
            yield self._value()
            if self._take(",]") == "]":
                return

    def members(self, streamed: str) -> Iterator[tuple[str, Any]]:
        """Yields each key of the text's object with its value; the key ``streamed``, whose value is
        a list, once for each entry of the list.

        Raises:
            ValueError: the text is not such an object, or a value is larger than MAX_VALUE_CHARS.
            RecursionError: the text is nested too deeply.
        """
        seen: set[str] = set()
        self._take("{")
        if self._peek() == "}":
            return
        while True:
            self._peek()
            key = self._value()
            if not isinstance(key, str) or key in seen:
                raise ValueError(f"a key {key!r:.40} that is not a string or occurs twice")
            seen.add(key)
            self._take(":")
            if key == streamed:
                for value in self._values():
                    yield key, value
            else:
                yield key, self._value()
            if self._take(",}") == "}":
                break
        if self._peek():
            raise ValueError("more text after the end of the object")
