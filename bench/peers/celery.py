"""Celery: a chain of ten tasks over RabbitMQ, acknowledged late, sent with confirms; no record is kept."""

from __future__ import annotations

from bench.harness import Env, Figures
from bench.peers.counting import chains
from bench.peers.environment import Peer, processes, python, version

APP = """
import sys
from celery import Celery, chain

app = Celery("app", broker=AMQP)
app.conf.update(
    task_default_queue=QUEUE, task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=4,
    broker_transport_options={"confirm_publish": True}, worker_enable_remote_control=False,
)

@app.task
def nothing(number):
    made(number)

if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        chain(nothing.si(number) for number in range(10))()
"""


def rates(env: Env, count: int) -> Figures:
    """Chains a second by number of worker processes, of 8 threads each."""
    interpreter = python(env, "celery", "celery", "redis")
    found = {}
    for number in (1, 2):
        with chains(env, APP) as app:
            submit = [str(interpreter), "-m", "app", str(count)]
            work = [str(interpreter), "-m", "celery", "-A", "app", "worker", "--pool", "threads"]
            work += ["--concurrency", "8", "--without-gossip", "--without-mingle", "--loglevel", "error"]
            name = f"Celery, {processes(number)}"
            found[name] = app.drain(submit, [*work, "--hostname", "%i"], number, count)
    return found


PEER = Peer("Celery", rates, lambda env: version(env, "celery", "celery", "kombu", "amqp"))
