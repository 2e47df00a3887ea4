"""The table of close codes, and the actions for codes outside of it."""

from __future__ import annotations

import pytest

from telex.protocol.close_codes import CLOSE_CODES, AfterClose, after_close
from telex.status_codes import is_sendable_close_code


@pytest.mark.parametrize(
    ("codes", "after"),
    [
        ((1002, 1003, 1007, 1008, 1009, 4400, 4403, 4404, 4405, 4409, 4410, 4426), "never"),
        ((4401,), "refresh"),
        ((1012, 1013, 4408, 4425, 4429, 4503), "retry_after"),
        ((1001, 1005, 1006, 1011, 4500), "back_off"),
        ((1000,), "done"),
        ((4418, 4499), "never"),
        ((4502, 4599), "back_off"),
        ((3000, 3999, 4000, 4399, 4600, 4999), "application"),
        ((1004, 1015, 2999, 5000), "back_off"),
    ],
)
def test_what_a_client_does_after_a_close(codes: tuple[int, ...], after: AfterClose) -> None:
    assert {code: after_close(code) for code in codes} == dict.fromkeys(codes, after)


def test_every_row_is_a_code_that_a_client_can_see() -> None:
    assert all(is_sendable_close_code(code) or code in {1005, 1006} for code in CLOSE_CODES)
