"""Verify an export of the audit log with nothing but Python: python verify.py EXPORT [HEAD]."""

import hashlib
import json
import pathlib
import sys


def hashed(*fields: str) -> str:
    """SHA-256 over the fields, each behind its length in bytes as eight bytes, most significant first."""
    told = b"".join(len(each.encode()).to_bytes(8, "big") + each.encode() for each in fields)
    return hashlib.sha256(told).hexdigest()


def expected(line: dict) -> str:
    """The hash that a row or the beginning of an epoch must have."""
    if line["record"] == "epoch":
        sealed = (str(line["previous_epoch"]), str(line["previous_position"]), line["previous_hash"])
        return hashed("instar.audit.epoch.v1", str(line["number"]), line["started_at"], *sealed)
    told = (line[name] for name in ("at", "actor", "action", "subject", "reason", "result", "previous_hash"))
    return hashed("instar.audit.row.v1", str(line["epoch"]), str(line["position"]), *told)


def main(path: str, known: str = "") -> None:
    """Go over an export; end with an error at the first line that is wrong."""
    with pathlib.Path(path).open(encoding="utf-8") as lines:
        begin, *records, end = map(json.loads, lines)
    epoch, position, last = begin["head"].split(":")
    heads = {begin["head"]}
    for number, line in enumerate(records, 2):
        if line["record"] == "epoch":
            place = (int(epoch) + 1, 0) if line["previous_position"] == int(position) else None
            found = (line["number"], 0)
        else:
            place, found = (int(epoch), int(position) + 1), (line["epoch"], line["position"])
        if found != place or line["previous_hash"] != last or line["hash"] != expected(line):
            sys.exit(f"line {number} is wrong")
        (epoch, position), last = map(str, found), line["hash"]
        heads.add(f"{epoch}:{position}:{last}")
    if end["record"] != "head" or end["head"] != f"{epoch}:{position}:{last}":
        sys.exit("the end is wrong")
    if known and known not in heads:
        sys.exit("it does not go through the head that is known")
    print(f"whole: {len(records)} records, head {end['head']}")


main(*sys.argv[1:])
