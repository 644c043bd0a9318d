"""A certificate authority of a test, which our clients trust through the environment, as they do that of a site."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.net import transport

PEM = serialization.Encoding.PEM
PLAIN = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@contextmanager
def trusted_tls(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[ssl.SSLContext]:
    """Yield the context of a server with these names and that of 127.0.0.1, which clients made meanwhile trust."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n)]) for n in ("a root", "a server"))
    now, later = datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(days=1)
    is_root = x509.BasicConstraints(ca=True, path_length=0)
    builder = x509.CertificateBuilder(issuer, issuer, root_key.public_key(), 1, now, later)
    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    builder = builder.add_extension(is_root, critical=True).add_extension(signs, critical=True)
    identity = x509.SubjectKeyIdentifier.from_public_key(root_key.public_key())
    root = builder.add_extension(identity, critical=False).sign(root_key, hashes.SHA256())
    alternatives = [*map(x509.DNSName, names), x509.IPAddress(ip_address("127.0.0.1"))]
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), 2, now, later)
    builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key())
    leaf = builder.add_extension(signed_by, critical=False).sign(root_key, hashes.SHA256())
    (folder / "root.pem").write_bytes(root.public_bytes(PEM))
    (folder / "server.pem").write_bytes(leaf.public_bytes(PEM) + key.private_bytes(PEM, *PLAIN))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "root.pem"))
    transport._tls.cache_clear()  # one context for all clients of a process, made at the first call
    try:
        yield context
    finally:
        transport._tls.cache_clear()
