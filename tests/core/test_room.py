from __future__ import annotations

from liteflow.core.room import CROWDED_FOR, Room


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_there_are_more_instances_than_slots_but_one_for_a_single_slot() -> None:
    assert Room(16, lambda instances: None).instances > 16
    assert Room(1, lambda instances: None).instances == 1


def test_long_steps_take_the_room_of_others() -> None:
    told: list[int] = []
    room = Room(4, told.append)
    full = room.instances
    for long in (1, 2, 3, 4, 3, 0):
        room.long_steps(long)
    assert told == [*sorted(told[:-2], reverse=True), 1, full]
    assert 0 in told and room.instances == full


def test_when_a_body_waited_for_a_slot_there_is_one_instance_for_each_for_a_while() -> None:
    told: list[int] = []
    clock = Clock()
    room = Room(8, told.append, clock)
    full = room.instances
    room.crowded()
    room.crowded()
    assert told == [8]
    clock.now = CROWDED_FOR - 1
    room.look()
    assert told == [8]
    clock.now = CROWDED_FOR
    room.look()
    assert told == [8, full]


def test_who_is_crowded_again_waits_twice_as_long() -> None:
    told: list[int] = []
    clock = Clock()
    room = Room(8, told.append, clock)
    room.crowded()
    clock.now = CROWDED_FOR
    room.look()
    room.crowded()
    clock.now += CROWDED_FOR
    room.look()
    assert told[-1] == 8
    clock.now += CROWDED_FOR
    room.look()
    assert told[-1] == room.instances > 8


def test_short_bodies_are_not_what_others_wait_for() -> None:
    room = Room(8, lambda instances: None)
    assert not room.bodies_are_short  # not known yet
    for _ in range(100):
        room.body_took(0.0005)
    assert room.bodies_are_short
    room.long_steps(1)
    assert not room.bodies_are_short  # some have to wait for a long step
    room.long_steps(0)
    for _ in range(100):
        room.body_took(0.01)
    assert not room.bodies_are_short
