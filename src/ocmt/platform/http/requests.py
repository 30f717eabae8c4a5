"""What routes read from a request: the signed-in user and a checked JSON body."""

from __future__ import annotations

from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from starlette.requests import HTTPConnection, Request
from starlette.types import Receive

from ocmt.errors import InvalidInput, NotFound, Unauthenticated
from ocmt.platform.principal import Principal

Body = TypeVar("Body", bound=BaseModel)


def principal(connection: HTTPConnection) -> Principal:
    """Whom the authentication middleware found. Raises: Unauthenticated where it found nobody."""
    found = connection.scope.get("state", {}).get("principal")
    if not isinstance(found, Principal):
        raise Unauthenticated("Sign in first.")
    return found


def path_id(request: Request, name: str, missing: str) -> UUID:
    """The id of that name in the path. Raises: NotFound(missing)."""
    return as_id(request.path_params[name], missing)


def as_id(text: str, missing: str) -> UUID:
    """The id. Raises: NotFound(missing), for what is no id is nobody's."""
    try:
        return UUID(text)
    except ValueError:
        raise NotFound(missing) from None


async def disconnected(receive: Receive) -> None:
    """Returns when the client is gone; what it still sends is of no interest."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def json_body(request: Request, model: type[Body]) -> Body:
    """The body as that model. Raises: InvalidInput that names the first field that is wrong."""
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise InvalidInput(first_fault(error.errors(include_url=False, include_input=False))) from error


def first_fault(faults: object) -> str:
    """One sentence from pydantic's list of errors, without what was sent in."""
    fault = faults[0] if isinstance(faults, (list, tuple)) and faults else {}
    if fault.get("type") == "json_invalid":
        return "The body of the request is not valid JSON."
    place = ".".join(str(part) for part in fault.get("loc", ()) if part != "body")
    what = str(fault.get("msg", "it is wrong"))
    return f"The field {place} is wrong: {what}." if place else f"The request is wrong: {what}."
