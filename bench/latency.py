"""W2: one workflow of one step at a time on an idle cluster, from the call of start to its end seen.

"raw calls" are the least that somebody has to wait for in turn, by the drivers alone and in one thread: a
durable insert, a confirmed message to a quorum queue, a lock, a find and a durable update.
"""

from __future__ import annotations

import time
import uuid

import pika
import redis
from pymongo import MongoClient

from bench.harness import Env, Figures, Target, Workload, percentile


def run(env: Env, quick: bool) -> Figures:
    count = 20 if quick else 200
    with env.cluster() as cluster:
        cluster.worker("one")
        cluster.scheduler()
        cluster.know("one")
        times = []
        for _ in range(count + 20):
            began = time.perf_counter()
            cluster.client.wait_for_workflow(cluster.client.start_workflow("one"), 30)
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(0.01)  # idle in between
    ours, raw = times[20:], raw_calls(env, count + 20)[20:]
    return {
        "p50": percentile(ours, 0.5),
        "p99": percentile(ours, 0.99),
        "raw calls, p50": percentile(raw, 0.5),
        "raw calls, p99": percentile(raw, 0.99),
    }


def raw_calls(env: Env, count: int) -> list[float]:
    """Milliseconds of each round."""
    name = f"raw{uuid.uuid4().hex[:8]}"
    client: MongoClient[dict[str, object]] = MongoClient(env.mongo, w="majority", journal=True)
    collection = client.get_default_database()[name]
    locks = redis.Redis.from_url(env.redis)
    connection = pika.BlockingConnection(pika.URLParameters(env.amqp))
    channel = connection.channel()
    channel.confirm_delivery()
    channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
    times = []
    for _ in range(count):
        key = uuid.uuid4().hex
        began = time.perf_counter()
        collection.insert_one({"_id": key, "version": 0})
        channel.basic_publish("", name, key.encode(), pika.BasicProperties(delivery_mode=2))
        locks.set(key, 1, nx=True, px=1000)
        collection.find_one({"_id": key})
        collection.update_one({"_id": key, "version": 0}, {"$set": {"version": 1}})
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(0.01)
    channel.queue_delete(name)
    connection.close()
    collection.drop()
    client.close()
    return times


WORKLOAD = Workload(
    "W2",
    "latency of one step, idle cluster",
    "ms",
    run,
    [
        Target("p50", lambda m: m["p50"], 7, 4, least=False),
        Target("p99", lambda m: m["p99"], 20, 8, least=False),
    ],
)
