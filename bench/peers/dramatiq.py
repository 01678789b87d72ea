"""Dramatiq: a pipeline of ten messages over RabbitMQ, published with confirms; no record is kept."""

from __future__ import annotations

from bench.harness import Env, Figures
from bench.peers.counting import chains
from bench.peers.environment import Peer, processes, python, version

APP = """
import sys
import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

dramatiq.set_broker(RabbitmqBroker(url=AMQP, confirm_delivery=True))

@dramatiq.actor(queue_name=QUEUE)
def nothing(number):
    made(number)

if __name__ == "__main__":
    step = nothing.message_with_options
    for _ in range(int(sys.argv[1])):
        dramatiq.pipeline([step(args=(n,), pipe_ignore=True) for n in range(10)]).run()
"""


def rates(env: Env, count: int) -> Figures:
    """Chains a second by number of worker processes, of 8 threads each."""
    interpreter = python(env, "dramatiq", "dramatiq[rabbitmq]", "redis")
    found = {}
    for number in (1, 2):
        with chains(env, APP) as app:
            submit = [str(interpreter), "-m", "app", str(count)]
            work = [str(interpreter), "-m", "dramatiq", "app", "--processes", str(number), "--threads", "8"]
            found[f"Dramatiq, {processes(number)}"] = app.drain(submit, work, 1, count)
    return found


PEER = Peer("Dramatiq", rates, lambda env: version(env, "dramatiq", "dramatiq", "pika"))
