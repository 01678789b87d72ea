"""Order fulfilment: 1,000 orders from a CSV file, each a durable workflow.

    python -m samples.orders            run it here, in one process, over a SQLite file
    liteflow worker samples.orders      run the same workflow on a cluster

Each order reserves its stock, charges the card (which now and then fails and is tried again), packs its
lines side by side, reminds the warehouse until that is done often enough, waits for the `shipped`
event, and is closed.
"""

from __future__ import annotations

import csv
import logging
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from zlib import crc32

from liteflow.core import *

ORDERS = Path(__file__).with_name("orders.csv")


@dataclass
class Line:
    sku: str
    quantity: int
    price: Decimal = Decimal(0)


@dataclass
class OrderData:
    order_id: str
    customer: str = ""
    lines: list[Line] = field(default_factory=list)
    placed: datetime = datetime(2026, 1, 1, tzinfo=timezone.utc)
    total: Decimal = Decimal(0)
    payment: str | None = None
    reminders: int = 0
    tracking: str | None = None


class ReserveStock(StepBody):
    """Adds up what the order comes to; a real one would call the stock service."""

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        data: OrderData = context.data
        data.total = sum((line.price * line.quantity for line in data.lines), Decimal(0))
        return ExecutionResult.next()


class CardDeclined(Exception):
    """The payment service has a bad moment."""


class ChargeCard(StepBody):
    """Charges once, however often it runs: the payment service gets the idempotency key."""

    payment: str

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        order_id = context.data.order_id
        if context.attempt == 1 and crc32(order_id.encode()) % 20 == 0:
            raise CardDeclined("try again later")
        self.payment = f"paid-{order_id}-{context.idempotency_key[:8]}"
        return ExecutionResult.next()


class PackLine(StepBody):
    """Packs one line, which is the item of the for_each."""

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        context.logger.debug("packing %s", context.item.sku)
        return ExecutionResult.next()


class RemindWarehouse(StepBody):
    """Sends a reminder."""

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        context.data.reminders += 1
        return ExecutionResult.next()


class CloseOrder(StepBody):
    """The last step."""

    def run(self, context: StepExecutionContext) -> ExecutionResult:
        return ExecutionResult.next()


class Order(Workflow):
    id = "order"
    version = 1
    data_type = OrderData

    def build(self, builder: WorkflowBuilder) -> None:
        (
            builder.start_with(ReserveStock)
            .then(ChargeCard)
                .output("payment", lambda step: step.payment)
                .on_error(WorkflowErrorHandling.RETRY, RetryPolicy(max_attempts=5, interval=0.5))
            .for_each(lambda data: data.lines)
                .do(lambda line: line.start_with(PackLine))
            .while_(lambda data: data.reminders < 2)
                .do(lambda again: again.delay(timedelta(milliseconds=200)).then(RemindWarehouse))
            .wait_for("shipped", lambda data: data.order_id, effective_date=lambda data: data.placed)
                .output("tracking", lambda step: step.event_data["tracking"])
            .then(CloseOrder)
        )  # fmt: skip


def read_orders(path: Path = ORDERS) -> list[OrderData]:
    """The orders of a CSV file with one row for each line of an order."""
    orders: dict[str, OrderData] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            order = orders.setdefault(row["order_id"], OrderData(row["order_id"], row["customer"]))
            order.lines.append(Line(row["sku"], int(row["quantity"]), Decimal(row["price"])))
    return list(orders.values())


def main() -> int:
    logging.getLogger("liteflow").setLevel(logging.ERROR)  # declined cards are part of the show
    orders = read_orders()
    lines = sum(len(order.lines) for order in orders)
    print(f"{len(orders)} orders with {lines} lines from {ORDERS.name}.")
    print("Everything runs in this process; each step's end is on the disk before the next one begins.\n")
    with tempfile.TemporaryDirectory(prefix="liteflow-demo-") as folder:
        # Here, since a worker that runs this module needs it for its own store only if that is SQL.
        from liteflow.providers.sql import SqlPersistenceProvider

        return run(SqlPersistenceProvider(f"sqlite:///{folder}/orders.db"), orders)


def run(store: PersistenceProvider, orders: list[OrderData]) -> int:
    """Take the orders through the workflow, and tell how that goes."""
    with configure_workflow_host(store) as host:
        host.register_workflow(Order)
        stages: dict[str, str] = {}  # by instance

        def heard(event: LifecycleEvent) -> None:
            stage = _AFTER.get(event.step_id or event.kind)
            if stage is not None:
                stages[event.workflow_id] = stage

        host.on_lifecycle_event(heard)
        began = time.monotonic()

        def place(order: OrderData) -> str:
            return host.start_workflow("order", data=order, reference=order.order_id)

        def ship(order: OrderData) -> None:
            host.publish_event("shipped", order.order_id, {"tracking": f"T-{order.order_id}"})

        with ThreadPoolExecutor(16) as customers:  # many at a time: their orders are stored together
            ids = list(customers.map(place, orders))
        warehouse = ThreadPoolExecutor(4)
        shipped = warehouse.map(ship, orders)
        for instance_id in ids:
            while True:
                try:
                    host.wait_for_workflow(instance_id, timeout=0.3)
                    break
                except TimeoutError:
                    _progress(Counter(stages.values()), len(ids), time.monotonic() - began)
        took = time.monotonic() - began
        list(shipped)
        warehouse.shutdown()
        instances = [host.get_workflow(instance_id) for instance_id in ids]
        _progress(Counter({_COMPLETE: len(ids)}), len(ids), took)
        retried = sum(1 for i in ids if host.get_errors(i))
    status = Counter(instance.status.name for instance in instances)
    steps = sum(len(instance.execution_pointers) for instance in instances)
    revenue = sum(instance.data.total for instance in instances)
    print("\n")
    print(f"  orders      {', '.join(f'{count} {name}' for name, count in status.items())}")
    print(f"  charged     {revenue} in total; {retried} cards were declined at first and tried again")
    print(
        f"  reminders   {sum(instance.data.reminders for instance in instances)}, each after a durable sleep"
    )
    print(f"  steps       {steps}, the state stored after each")
    print(f"  time        {took:.1f} s\n")
    first = instances[0]
    print(f"  {first.reference}: {' -> '.join(p.step_id for p in first.execution_pointers)}")
    return 0 if status == {"COMPLETE": len(ids)} else 1


def _progress(at: Counter[str], orders: int, seconds: float) -> None:
    """One line: how many orders are at which stage."""
    shown = "  ".join(f"{stage} {at[stage]:>4}" for stage in ["packing", "reminding", "shipping"])
    done = at[_COMPLETE]
    paying = orders - sum(at.values())
    bar = "#" * (20 * done // orders)
    line = f"  [{bar:<20}] paying {paying:>4}  {shown}  complete {done:>4}  {seconds:4.1f} s"
    tty = sys.stdout.isatty()
    print(f"\r{line}" if tty else line, end="" if tty else "\n", flush=True)


_COMPLETE = "complete"
_AFTER = {
    "ChargeCard": "packing",
    "for_each:PackLine": "reminding",
    "while:delay": "shipping",
    "completed": _COMPLETE,
}
"""By what has ended: where the order is then."""


if __name__ == "__main__":
    sys.exit(main())
