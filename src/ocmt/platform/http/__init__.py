"""The HTTP edge that all services share: who asks, errors as problems, middlewares, servers, the client.

Everything here is bare ASGI or Starlette and never buffers a response, for event streams pass through it.
"""

from ocmt.platform.http.client import HttpClient, client_session
from ocmt.platform.http.listener import Closer, serve_on
from ocmt.platform.http.middleware import RequestLimits, RequestLog, SecurityHeaders
from ocmt.platform.http.problems import exception_handlers, problem
from ocmt.platform.http.protocol import HttpProtocol
from ocmt.platform.http.redirects import redirect, redirect_to
from ocmt.platform.http.requests import as_id, disconnected, json_body, path_id, principal

__all__ = [
    "Closer",
    "HttpClient",
    "HttpProtocol",
    "RequestLimits",
    "RequestLog",
    "SecurityHeaders",
    "as_id",
    "client_session",
    "disconnected",
    "exception_handlers",
    "json_body",
    "path_id",
    "principal",
    "problem",
    "redirect",
    "redirect_to",
    "serve_on",
]
