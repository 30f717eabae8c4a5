"""People for tests of rooms that need users but not how they sign in."""

from uuid import UUID

from uuid_utils.compat import uuid7

from ocmt.platform.database import Database


async def make_user(database: Database, email: str) -> UUID:
    """A user's row, as identity would have made it."""
    user_id = uuid7()
    async with database.connection() as connection:
        await connection.execute("insert into users (id, email) values ($1, $2)", user_id, email)
    return user_id
