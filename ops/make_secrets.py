#!/usr/bin/env python3
"""Makes the passwords of the deployment in docker-compose.yml, once, and the files that hold them.

    ops/make_secrets.py            writes secrets/ beside docker-compose.yml
    ops/make_secrets.py DIRECTORY  writes DIRECTORY

Redis and RabbitMQ get hashes, their clients URLs. An existing directory is left alone: to change the passwords, move it
away, run this again and restart everything. Only the owner may enter the directory; the files in it can be read by
whichever user a container runs as.
"""

import base64
import hashlib
import json
import os
import secrets
import sys
from pathlib import Path

OPS = Path(__file__).resolve().parent

# Users of ops/redis/users.acl with a password. `health` may only ask whether the server answers.
REDIS_USERS = ("health", "orchestrator", "operator")

# User: rights in RabbitMQ to configure, write and read. What the broker itself does (dead-lettering, alternate exchange)
# needs none. `producer` is for whoever feeds receipts in, `subscriber` for whoever reads outputs: copy and narrow it.
RABBITMQ_USERS = {
    "orchestrator": (
        "^$",
        r"^orchestrator\.(events|receipts\.dead|marks|trading|trading\.events\.dead)$",
        r"^orchestrator\.(receipts|marks|trading\.events)$",
    ),
    "producer": ("^$", r"^market\.raw$", "^$"),
    "subscriber": (r"^subscriber\.", r"^subscriber\.", r"^(orchestrator\.(events|trading)|subscriber\..*)$"),
}


def redis_users(passwords):
    """The ACL file: one user a line, with the hash of its password."""
    hashes = {user: "#" + hashlib.sha256(password.encode()).hexdigest() for user, password in passwords.items()}
    return (OPS / "redis" / "users.acl").read_text().format(**hashes)


def rabbitmq_users(passwords):
    """Definitions with nothing but users and their rights."""

    def hashed(password):
        salt = secrets.token_bytes(4)
        return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()

    users = [
        {
            "name": user,
            "password_hash": hashed(passwords[user]),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": "",
        }
        for user in RABBITMQ_USERS
    ]
    permissions = [
        {"user": user, "vhost": "/", "configure": configure, "write": write, "read": read}
        for user, (configure, write, read) in RABBITMQ_USERS.items()
    ]
    return json.dumps({"users": users, "permissions": permissions}, indent=2) + "\n"


def files():
    """Name and content of every secret."""
    redis = {user: secrets.token_urlsafe(24) for user in REDIS_USERS}
    rabbitmq = {user: secrets.token_urlsafe(24) for user in RABBITMQ_USERS}
    made = {
        "redis_users.acl": redis_users(redis),
        "rabbitmq_users.json": rabbitmq_users(rabbitmq),
        "redis_health_password": redis["health"] + "\n",
        "redis_url": f"redis://orchestrator:{redis['orchestrator']}@redis:6379/0\n",
        "redis_operator_url": f"redis://operator:{redis['operator']}@redis:6379/0\n",
    }
    for user, password in rabbitmq.items():
        name = "rabbitmq_url" if user == "orchestrator" else f"rabbitmq_{user}_url"
        made[name] = f"amqp://{user}:{password}@rabbitmq:5672/%2f\n"
    return made


def main(arguments):
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(__doc__)
        return 0 if arguments in (["-h"], ["--help"]) else 2
    directory = Path(arguments[0]) if arguments else OPS.parent / "secrets"
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        print(f"{directory} is there already: its secrets stay as they are", file=sys.stderr)
        return 1
    for name, content in files().items():
        path = directory / name
        path.write_text(content)
        os.chmod(path, 0o444)
    print(f"wrote {directory}: keep it out of backups that others can read")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
