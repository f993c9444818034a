"""Messages of the worker link as lines of JSON, and back. Secrets are in them, and nowhere else."""

from __future__ import annotations

import msgspec

from transferd.model.credentials import Secret
from transferd.wire import link
from transferd.wire.message import Message


def _encode_secret(value: object) -> object:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"cannot send a {type(value).__name__} over the worker link")


def _decode_secret(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError(f"cannot read a {kind.__name__} from the worker link")


#: A longer line is not one of ours.
MAX_LINE = 64 * 1024 * 1024

_encoder = msgspec.json.Encoder(enc_hook=_encode_secret)
_to_worker = msgspec.json.Decoder(link.ToWorker, dec_hook=_decode_secret)
_from_worker = msgspec.json.Decoder(link.FromWorker, dec_hook=_decode_secret)


def encode(message: Message) -> bytes:
    """Return the line for *message*, with its newline."""
    return _encoder.encode(message) + b"\n"


def decode_to_worker(line: bytes) -> link.ToWorker:
    """Read a line that the daemon sent.

    Raises:
        msgspec.MsgspecError: it is none of the daemon's messages.
    """
    message: link.ToWorker = _to_worker.decode(line)
    return message


def decode_from_worker(line: bytes) -> link.FromWorker:
    """Read a line that a worker sent.

    Raises:
        msgspec.MsgspecError: it is none of a worker's messages.
    """
    message: link.FromWorker = _from_worker.decode(line)
    return message
