"""What clients do before their first request: they look whether anybody is there."""

import socket
import ssl
import urllib.request

import pytest


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_root_answers_without_a_key(edge, method: str, scheme: str):
    request = urllib.request.Request(getattr(edge, scheme) + "/", method=method)
    context = ssl.create_default_context(cafile=edge.ca) if scheme == "https" else None
    with urllib.request.urlopen(request, context=context) as answer:
        assert answer.status == 200


def test_tls_is_the_current_version(edge):
    context = ssl.create_default_context(cafile=edge.ca)
    host, port = edge.https.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
        assert tls.version() == "TLSv1.3"
