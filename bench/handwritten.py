"""The reference: ten durable steps as an engineer writes them without an engine, with the raw drivers.

Consume an id, `SET NX PX`, `find_one`, ten times `update_one` with a compare-and-set on the version, release
by script, ack.

    python -m bench.handwritten MONGO AMQP REDIS NAME CONCERN THREADS
"""

from __future__ import annotations

import sys
import threading
import uuid
from typing import Any

import pika
import pymongo
import redis
from pymongo.collection import Collection

from bench.harness import ROOT, Env, rate, until
from bench.processes import kill, spawn

RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
CONCERNS: dict[str, dict[str, Any]] = {"durable": {"w": "majority", "journal": True}, "w1": {"w": 1}}
"""Of what a step's end is stored with: "durable" is what LiteFlow does, "w1" is in the server's memory."""

SHAPES = {"1 process": (1, 1), "2 processes": (2, 1), "1 x 8 threads": (1, 8), "2 x 8 threads": (2, 8)}
"""Processes, and threads of each."""


def work(mongo: str, amqp: str, lock: str, name: str, concern: str) -> None:
    """One consumer, which goes on until its process ends."""
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(mongo, **CONCERNS[concern])
    collection = client.get_default_database()[name]
    locks = redis.Redis.from_url(lock)
    release = locks.register_script(RELEASE)
    channel = pika.BlockingConnection(pika.URLParameters(amqp)).channel()
    channel.basic_qos(prefetch_count=50)
    for method, _, body in channel.consume(name):
        assert body is not None and method is not None and method.delivery_tag is not None
        key, token = body.decode(), uuid.uuid4().hex
        if not locks.set(f"{name}:{key}", token, nx=True, px=10_000):
            channel.basic_nack(method.delivery_tag)
            continue
        document = collection.find_one({"_id": key})
        assert document is not None
        version = document["version"]
        for step in range(10):
            state = {"version": version + 1, "step": step + 1, "status": 2 if step == 9 else 0}
            done = collection.update_one({"_id": key, "version": version}, {"$set": state})
            assert done.matched_count == 1
            version += 1
        release(keys=[f"{name}:{key}"], args=[token])
        channel.basic_ack(method.delivery_tag)


def chains(env: Env, shape: str, count: int, concern: str = "durable", submit: bool = False) -> float:
    """Instances a second of processes of this shape.

    From a queue that was filled before they start; or, with `submit`, from the first submit to the last end,
    while one thread submits to processes that wait.
    """
    processes, threads = SHAPES[shape]
    name = f"hand{uuid.uuid4().hex[:8]}"
    client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(env.mongo, **CONCERNS[concern])
    collection = client.get_default_database()[name]
    collection.create_index("status")
    connection = pika.BlockingConnection(pika.URLParameters(env.amqp))
    channel = connection.channel()
    channel.queue_declare(name, durable=True)
    channel.confirm_delivery()
    command = [sys.executable, "-m", "bench.handwritten", env.mongo, env.amqp, env.redis, name, concern]
    running = []

    def send() -> None:
        for _ in range(count):
            key = uuid.uuid4().hex
            collection.insert_one({"_id": key, "version": 0, "step": 0, "status": 0, "data": {}})
            channel.basic_publish("", name, key.encode(), pika.BasicProperties(delivery_mode=2))

    def consumers() -> int:
        return channel.queue_declare(name, passive=True).method.consumer_count or 0

    def ended() -> int:
        return collection.count_documents({"status": 2})

    try:
        if not submit:
            send()
        running = [spawn([*command, str(threads)], folder=ROOT) for _ in range(processes)]
        if not submit:
            return rate(lambda: _moved(collection), ended, count)
        until(lambda: consumers() == processes * threads, 60)
        sender = threading.Thread(target=send)
        sender.start()
        found = rate(lambda: True, ended, count)
        sender.join()
        return found
    finally:
        kill(running)
        channel.queue_delete(name)
        connection.close()
        collection.drop()
        client.close()


def _moved(collection: Collection[dict[str, Any]]) -> bool:
    return collection.find_one({"version": {"$gt": 0}}, {"_id": 1}) is not None


if __name__ == "__main__":
    *servers, number = sys.argv[1:]
    consumers = [threading.Thread(target=work, args=servers, daemon=True) for _ in range(int(number))]
    for consumer in consumers:
        consumer.start()
    for consumer in consumers:
        consumer.join()
