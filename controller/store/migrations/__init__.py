"""The forms that the database has had, oldest first; each migration runs in the transaction that opens the store."""
