"""The peer of `GET /api/v1/me`: a Starlette route that answers with the row of one query, and nothing else.

The same server, event loop, pool and statement; no middleware, no checks, no log.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ocmt.platform.queries import load_queries

# The one by which our own route finds who asks.
STATEMENT = load_queries("ocmt.identity.entrance").find_session.sql


@asynccontextmanager
async def _lifespan(app: Starlette) -> Any:
    app.state.pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1, max_size=10)
    yield
    await app.state.pool.close()


async def _me(request: Request) -> Response:
    token = request.cookies["ocmt"]
    row = await request.app.state.pool.fetchrow(
        STATEMENT, hashlib.sha256(token.encode()).digest(), datetime.now(UTC)
    )
    return JSONResponse({"id": str(row["user_id"]), "email": row["email"], "role": row["role"]})


app = Starlette(routes=[Route("/me", _me)], lifespan=_lifespan)

if __name__ == "__main__":
    uvicorn.run(
        app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="error"
    )
