"""Targets for atheris: ``python -m tests.server.fuzz.target frames|handshakes|telex.v1 -max_total_time=60``."""

from __future__ import annotations

import sys


def main() -> None:
    """Fuzzes until the time is over or a case fails."""
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    with atheris.instrument_imports(include=["telex.server", "telex.protocol"]):
        from tests.protocol.fuzz import test_frames as test_protocol_frames
        from tests.server.fuzz import test_frames, test_handshakes
    tests = {
        "frames": test_frames.test_frames_lead_to_what_the_model_says,
        "telex.v1": test_protocol_frames.test_any_message_is_a_frame_or_is_refused,
        "handshakes": test_handshakes.test_handshakes_have_one_response_in_any_packets,
    }
    test = tests[sys.argv.pop(1)]
    atheris.Setup(sys.argv, test.hypothesis.fuzz_one_input)  # type: ignore[attr-defined, unused-ignore]
    atheris.Fuzz()


if __name__ == "__main__":
    main()
