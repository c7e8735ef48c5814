"""What goes out of this repository, and how anybody can see what it is: wheels, sums, signature, bill of materials.

Rules kept here: whatever is built comes from a commit and from the lock alone, so that two builds give the same bytes;
whoever has no answer says so, and never that all is well. Left out: the Debian package (`agent/packaging`), and where
any of it is put for others to fetch.
"""
