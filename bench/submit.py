"""W8: how many starts a second are stored, from one producer over AMQP, and from threads of a host.

A worker process takes the commands; the workflow is one that is recorded but that nobody here runs, so that
storing alone is measured. "and run": of a workflow of one step that the same worker also runs.
"""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pika

from bench.harness import Cluster, Env, Figures, Target, Workload, rate
from liteflow.core.models import DefinitionRecord


def run(env: Env, quick: bool) -> Figures:
    count = 200 if quick else 5000
    found = {}
    for label, workflow in (("AMQP", "elsewhere"), ("AMQP, and run", "one")):
        with env.cluster() as cluster:
            cluster.worker("one")
            cluster.know("one")
            cluster.client.persistence.record_definitions([DefinitionRecord("elsewhere", 1, "x")])
            time.sleep(1)  # the worker reads what is recorded once in a second
            found[label] = _over_amqp(cluster, workflow, count)
    for threads in (1, 16):
        with env.cluster() as cluster:
            cluster.client.persistence.record_definitions([DefinitionRecord("elsewhere", 1, "x")])
            found[f"host, {threads} thread{'s' if threads > 1 else ''}"] = _by_host(
                cluster, threads, count // 5
            )
    return found


def _over_amqp(cluster: Cluster, workflow: str, count: int) -> float:
    prefix = cluster.urls.prefix

    def produce() -> None:
        with pika.BlockingConnection(pika.URLParameters(cluster.urls.queue)) as connection:
            channel = connection.channel()
            for number in range(count):
                body = {"workflow": workflow, "data": {"number": number}}
                properties = pika.BasicProperties(delivery_mode=2, message_id=f"{prefix}:{number}")
                channel.basic_publish(prefix, "workflow.start", json.dumps(body).encode(), properties)

    producer = threading.Thread(target=produce)
    producer.start()
    found = rate(lambda: True, lambda: cluster.count({}), count)
    producer.join()
    return found


def _by_host(cluster: Cluster, threads: int, count: int) -> float:
    def start(number: int) -> None:
        cluster.client.start_workflow("elsewhere", data={"number": number})

    start(-1)  # connects
    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(start, range(count)))
        return count / (time.perf_counter() - began)


WORKLOAD = Workload(
    "W8",
    "starts, stored",
    "starts/s",
    run,
    [Target("AMQP, one producer", lambda f: f["AMQP"], 1500, 4000)],
)
