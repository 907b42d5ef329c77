"""Auth: who may speak to a daemon. PLAIN with a key per launch on loopback, CURVE everywhere else.

libzmq asks a ZAP responder (rfc.zeromq.org/spec/27) before it lets any message of a connection through;
`Auth.answer` is that responder, called from the daemon's own loop, so there is no further thread.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
from typing import TYPE_CHECKING

import zmq

from npc_runtime.errors import ConfigError, reason

if TYPE_CHECKING:
    from pathlib import Path

USER = "npc"
"""User name of PLAIN; the key is the password."""
ZAP_ENDPOINT = "inproc://zeromq.zap.01"
_DOMAIN = b"npc"
_Z85 = r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}"
_MAX_KEY_FILE = 4096


class Auth:
    """Settings of a listening socket and the answers to libzmq's questions about its peers."""

    mechanism: bytes
    key: str = ""
    """The per-launch key that clients must know; empty under CURVE."""
    server_key: str = ""
    """The daemon's public key under CURVE (z85)."""

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Sets the socket's options; must precede bind, or libzmq lets the first peers in unasked."""
        raise NotImplementedError

    def user(self, credentials: list[bytes]) -> bytes:
        """The name of a peer with these credentials, or nothing when it may not enter."""
        raise NotImplementedError

    def answer(self, question: list[bytes]) -> list[bytes]:
        """The reply frames to a ZAP request; anything unexpected is refused."""
        if len(question) < 6 or question[0] != b"1.0":
            return [b"1.0", question[1] if len(question) > 1 else b"", b"500", b"unknown ZAP request", b"", b""]
        domain, mechanism, credentials = question[2], question[5], question[6:]
        user = self.user(credentials) if (domain, mechanism) == (_DOMAIN, self.mechanism) else b""
        status = (b"200", b"OK") if user else (b"400", b"the key is not that of this daemon")
        return [b"1.0", question[1], *status, user, b""]


class PlainAuth(Auth):
    """ZMTP PLAIN with user `npc` and a key; for loopback only, because the key travels readable."""

    mechanism = b"PLAIN"

    def __init__(self, key: str | None = None) -> None:
        if key is not None and not (16 <= len(key) <= 255 and key.isascii() and key.isprintable()):
            raise ConfigError(f"the key must be 16 to 255 printable ASCII characters, got {len(key)} characters")
        self.key = secrets.token_urlsafe(24) if key is None else key

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Demands PLAIN."""
        socket.plain_server = 1
        socket.zap_domain = _DOMAIN

    def user(self, credentials: list[bytes]) -> bytes:
        """`npc` for whoever knows the key."""
        known = len(credentials) == 2 and hmac.compare_digest(credentials[1], self.key.encode())
        return USER.encode() if known and credentials[0] == USER.encode() else b""


class CurveAuth(Auth):
    """CURVE: encrypted, the daemon known by its secret key, clients by public keys in a folder."""

    mechanism = b"CURVE"

    def __init__(self, secret_file: Path, clients: Path) -> None:
        if not zmq.has("curve"):
            raise ConfigError("this build of libzmq lacks CURVE; install pyzmq from PyPI")
        self._secret = read_key(secret_file, "secret-key")
        try:
            self.server_key = zmq.curve_public(self._secret.encode()).decode()
        except (zmq.ZMQError, ValueError) as error:
            raise ConfigError(f"`{secret_file}` holds no CURVE secret key: {error}") from error
        self._clients = frozenset(read_key(path, "public-key") for path in _key_files(clients))

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Demands CURVE."""
        socket.curve_server = 1
        socket.curve_secretkey = self._secret.encode()
        socket.zap_domain = _DOMAIN

    def user(self, credentials: list[bytes]) -> bytes:
        """The client's public key (z85), if it is one of the folder's."""
        from zmq.utils import z85

        if len(credentials) != 1 or len(credentials[0]) != 32:
            return b""
        name: bytes = z85.encode(credentials[0])
        return name if name.decode() in self._clients else b""


def read_key(path: Path, kind: str) -> str:
    """The z85 key in a file: either alone, or as `kind = "..."` in the format of pyzmq's certificates."""
    try:
        text = path.read_bytes()[: _MAX_KEY_FILE + 1].decode("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the CURVE key file `{path}` cannot be read: {reason(error)}") from error
    found = re.search(rf'^\s*{kind}\s*=\s*"({_Z85})"\s*$', text, re.MULTILINE) or re.fullmatch(rf"\s*({_Z85})\s*", text)
    if found is None:
        raise ConfigError(f"`{path}` holds no {kind} of 40 z85 characters")
    return found[1]


def _key_files(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".key")
    except OSError as error:
        raise ConfigError(f"the folder of client keys `{folder}` cannot be read: {reason(error)}") from error
    if not files:
        raise ConfigError(f"the folder of client keys `{folder}` holds no *.key file, so nobody could connect")
    return files


def is_loopback(host: str) -> bool:
    """True when only processes of this machine can reach `host`, an IP address. Raises ConfigError for a name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise ConfigError(f"the address to listen on must be an IP address, got `{host:.80}`") from error


def choose_auth(host: str, key: str | None, curve_secret: Path | None, curve_clients: Path | None) -> Auth:
    """The Auth for an address. Raises ConfigError when the address demands CURVE and its keys are not given."""
    if curve_secret is not None and curve_clients is not None:
        return CurveAuth(curve_secret, curve_clients)
    if curve_secret is not None or curve_clients is not None:
        raise ConfigError("CURVE needs both the daemon's secret key file and the folder of client keys")
    if not is_loopback(host):
        raise ConfigError(
            f"`{host}` can be reached from other machines, which demands CURVE",
            "Give the daemon's secret key file and the folder of client keys, or listen on 127.0.0.1",
        )
    return PlainAuth(key)
