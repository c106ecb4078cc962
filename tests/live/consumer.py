#!/usr/bin/python3
"""A plain AMQP consumer, as a subscriber would write it: pika, a queue of its own, and nothing of ours.

It binds QUEUE to EXCHANGE, says "ready" on standard error, and writes one JSON object a message to standard output:
routing key, properties, headers and body as they came. It ends after COUNT distinct message ids, or when nothing came
for IDLE seconds; without COUNT it goes on until it is ended. When the broker goes away it connects again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import pika
import pika.exceptions


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--exchange", required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--count", type=int)
    parser.add_argument("--idle", type=float, default=30.0)
    return parser.parse_args()


def line(method: pika.spec.Basic.Deliver, properties: pika.BasicProperties, body: bytes) -> str:
    return json.dumps(
        {
            "routing_key": method.routing_key,
            "redelivered": method.redelivered,
            "message_id": properties.message_id,
            "correlation_id": properties.correlation_id,
            "content_type": properties.content_type,
            "app_id": properties.app_id,
            "type": properties.type,
            "delivery_mode": properties.delivery_mode,
            "headers": properties.headers,
            "body": body.decode("utf-8"),
        },
        sort_keys=True,
    )


def consume(args: argparse.Namespace, seen: set[str]) -> bool:
    """Prints what comes over one connection; says whether it has all."""
    connection = pika.BlockingConnection(pika.URLParameters(args.url))
    channel = connection.channel()
    channel.queue_declare(args.queue, durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind(args.queue, args.exchange, routing_key="orchestrator_event.#")
    channel.basic_qos(prefetch_count=256)
    print("ready", file=sys.stderr, flush=True)
    last = time.monotonic()
    for method, properties, body in channel.consume(args.queue, inactivity_timeout=0.2):
        if method is not None:
            last = time.monotonic()
            print(line(method, properties, body), flush=True)
            seen.add(properties.message_id)
            channel.basic_ack(method.delivery_tag)
        if args.count is None:
            continue
        if len(seen) >= args.count or time.monotonic() - last > args.idle:
            break
    channel.cancel()
    connection.close()
    return len(seen) >= args.count


def main() -> int:
    args = arguments()
    seen: set[str] = set()
    while True:
        try:
            return 0 if consume(args, seen) else 1
        except (pika.exceptions.AMQPError, OSError) as error:
            print(f"again after {error!r}", file=sys.stderr, flush=True)
            time.sleep(0.2)


if __name__ == "__main__":
    raise SystemExit(main())
