"""The reference: ten durable steps as an engineer writes them without an engine, with the raw drivers.

Consume an id, `SET NX PX`, `find_one`, ten times `update_one` with a compare-and-set on the version, release
by script, ack.

    python -m bench.handwritten MONGO AMQP REDIS NAME THREADS
"""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid

import pika
import redis
from pymongo import MongoClient

from bench.harness import ROOT, Env, rate

RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
DURABLE = {"w": "majority", "journal": True}


def work(mongo: str, amqp: str, lock: str, name: str) -> None:
    """One consumer, until the queue is empty."""
    collection = MongoClient(mongo, w="majority", journal=True).get_default_database()[name]
    locks = redis.Redis.from_url(lock)
    release = locks.register_script(RELEASE)
    channel = pika.BlockingConnection(pika.URLParameters(amqp)).channel()
    channel.basic_qos(prefetch_count=50)
    for method, _, body in channel.consume(name, inactivity_timeout=1):
        if method is None:
            return
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


def drain(env: Env, processes: int, threads: int, count: int) -> float:
    """Instances a second, from a queue that was filled before."""
    name = f"hand{uuid.uuid4().hex[:8]}"
    client: MongoClient[dict[str, object]] = MongoClient(env.mongo, w="majority", journal=True)
    collection = client.get_default_database()[name]
    collection.create_index("status")
    keys = [uuid.uuid4().hex for _ in range(count)]
    collection.insert_many({"_id": key, "version": 0, "step": 0, "status": 0, "data": {}} for key in keys)
    connection = pika.BlockingConnection(pika.URLParameters(env.amqp))
    channel = connection.channel()
    channel.queue_declare(name, durable=True)
    for key in keys:
        channel.basic_publish("", name, key.encode(), pika.BasicProperties(delivery_mode=2))
    arguments = [env.mongo, env.amqp, env.redis, name, str(threads)]
    running = [
        subprocess.Popen([sys.executable, "-m", "bench.handwritten", *arguments], cwd=ROOT)
        for _ in range(processes)
    ]
    try:
        return rate(lambda: collection.count_documents({"status": 2}), count)
    finally:
        for process in running:
            process.kill()
            process.wait()
        channel.queue_delete(name)
        connection.close()
        collection.drop()
        client.close()


if __name__ == "__main__":
    *servers, number = sys.argv[1:]
    consumers = [threading.Thread(target=work, args=servers) for _ in range(int(number))]
    for consumer in consumers:
        consumer.start()
    for consumer in consumers:
        consumer.join()
