import msgspec

from telex import Telex, websocket_listener


class Payment(msgspec.Struct):
    to: str
    cents: int


class Paid(msgspec.Struct):
    number: int


class Refused(Exception):
    """A declared error: it is recorded as replies are."""


payments: list[Payment] = []


@websocket_listener("/payments", idempotent=True, errors=[Refused])
async def pay(data: Payment) -> Paid:
    if data.cents > 100_000:
        raise Refused("too much for one payment")
    payments.append(data)
    return Paid(len(payments))


app = Telex([pay])
