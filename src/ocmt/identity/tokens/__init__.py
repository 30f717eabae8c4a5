"""Access tokens (JWT): short-lived, signed, checked without a database; and the keys that sign them."""
