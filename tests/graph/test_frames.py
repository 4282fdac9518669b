"""Frames that are made once for many: byte for byte what the server's own library would send."""

import pytest
from websockets.frames import Frame, Opcode

from graph.frames import text_frame


@pytest.mark.feature("003-43")
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
def test_a_ready_frame_is_what_the_library_would_send(size: int) -> None:
    payload = b"x" * size

    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
