"""The peer of `GET /api/v1/me`: a Starlette route that answers with the row of one query, and nothing else.

The same server, event loop, pool and statement; no middleware, no checks, no log.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

STATEMENT = """
select session.id, session.created_at, session.last_seen_at, session.authenticated_at, session.methods,
       session.impersonator_id, owner.id as user_id, owner.email, owner.role, owner.mfa_required
from login_sessions session join users owner on owner.id = session.user_id
where session.token_hash = $1 and session.revoked_at is null and session.expires_at > now()
  and owner.status = 'active'
"""


@asynccontextmanager
async def _lifespan(app: Starlette) -> Any:
    app.state.pool = await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1, max_size=10)
    yield
    await app.state.pool.close()


async def _me(request: Request) -> Response:
    token = request.cookies["ocmt"]
    row = await request.app.state.pool.fetchrow(STATEMENT, hashlib.sha256(token.encode()).digest())
    return JSONResponse({"id": str(row["user_id"]), "email": row["email"], "role": row["role"]})


app = Starlette(routes=[Route("/me", _me)], lifespan=_lifespan)

if __name__ == "__main__":
    uvicorn.run(
        app, port=int(sys.argv[1]), loop="uvloop", http="httptools", access_log=False, log_level="error"
    )
