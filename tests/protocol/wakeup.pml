/*
 * How queue, lease and store work together: a model for the checker Spin.
 *
 * docs/protocol.md explains it, and says for each part what it is in the code; check.py beside this file
 * runs it. One `atomic` is one act on one server; between two acts everything else may happen.
 */

/* How much of everything: two are few, but most of what goes wrong needs no more. */
#ifndef WORKERS
#define WORKERS 2
#endif
#ifndef INSTANCES
#define INSTANCES 1
#endif
#ifndef EVENTS
#define EVENTS 0     /* and as many waits for them */
#endif
#ifndef TIMERS
#define TIMERS 0     /* sleeps, 0 or 1 */
#endif
#ifndef REQUESTS
#define REQUESTS 0   /* the first suspends, the second resumes */
#endif
#ifndef CRASHES
#define CRASHES 0    /* of workers, scheduler, dispatcher and clients, between two acts */
#endif
#ifndef LOSSES
#define LOSSES 0     /* leases that end while their holders live: paused, or Redis came back empty */
#endif
#ifndef UNKNOWNS
#define UNKNOWNS 0   /* commits that are not confirmed, done or not */
#endif
#ifndef DUPLICATES
#define DUPLICATES 0 /* wake-ups that are delivered twice */
#endif
#ifndef YIELDS
#define YIELDS 0     /* time slices that end before the next body */
#endif
#ifndef ROUNDS
#define ROUNDS 1     /* how often the scheduler finds one of the times that are there for safety */
#endif
#define FOREVER 255
#ifdef LIVENESS      /* to be checked for progress: what may happen for ever must help */
#undef ROUNDS
#define ROUNDS FOREVER
#endif
#ifndef AHEAD
#define AHEAD 0      /* 1: a start may send before it stores; what follows a wait may begin before its end is stored */
#endif
#ifndef STOPS
#define STOPS 0      /* workers that leave because their time to shut down is over */
#endif

/* Each protection can be taken away, to see that the checker finds what it is for: -DWITHOUT=MARK. */
#ifndef WITHOUT
#define WITHOUT 0
#endif
#define KEPT(protection) (WITHOUT != protection)
#define REVISION        1   /* a commit compares the revision */
#define INBOX           2   /* ... and the inbox's sequence */
#define SETTLING        3   /* an unconfirmed commit is settled by its token */
#define ACK_LAST        4   /* a message is acknowledged last */
#define MARK            5   /* a release tells of the mark */
#define OWNER           6   /* ... and gives back only one's own lease */
#define LOWERING        7   /* who is turned away lowers wake_at */
#define WAIT_IN_STATE   8   /* a wait is stored in the commit that begins it */
#define LOOK_AFTER      9   /* the event log is looked at after that commit */
#define LOOK_RESUMED   10   /* ... and after a resume */
#define REMEMBERING    11   /* what was taken is stored in the commit that takes it */
#define WAKE_FIRST     12   /* waiters are woken before the event counts as processed */
#define HOLD_COMPARES  13   /* the scheduler's hold compares wake_at */
#define MOVE_COMPARES  14   /* what clears wake_at compares it */
#define MOVE_REQUESTS  15   /* ... and the inbox's sequence */
#define MOVE_LOWERS    16   /* what only lowers wake_at need not compare it */
#define MOVE_UNDER_LEASE 17 /* what clears wake_at does so while a wake-up is in hand, before the release */
#define LATECOMERS     18   /* a message that came after the last look is not acknowledged with the others */
#define STOP_UNSEEN    19   /* a look that was cut off is left to somebody else */
#define PATIENCE       20   /* who is sent for before the instance is stored looks again */
#define TOLD_AGAIN     21   /* ... and if that was in vain, who stores it sends once more */

/* The flow of an instance, by position: a step, the waits, the sleep, a step, END. */
#define END          (EVENTS + TIMERS + 2)
#define WAITS(p)     (p >= 1 && p <= EVENTS)
#define SLEEPS(p)    (TIMERS && p == EVENTS + 1)
#define SUSPENDED(k) (k == 1)   /* k: requests that were applied */
#define STEP(p)      (p < END && !WAITS(p) && !SLEEPS(p))
#define READY(p, k)  (p < END && !SUSPENDED(k) && !WAITS(p) && (!SLEEPS(p) || I[i].past))
#define WAKE(p, k)   (p == END || SUSPENDED(k) -> NEVER : (SLEEPS(p) && !I[i].past -> TIMER : LATE))

/* wake_at. TIMER is the end of the sleep. LATE and EARLY, after and before that, are what is there for safety:
   a lease's end, a grace, a hold. Those may come at any moment. A greater number is an earlier time. */
#define NEVER 0
#define LATE  1
#define TIMER 2
#define EARLY 3
#define DEAD  (WORKERS + 1)   /* holds a lease that nobody gives back */
#define MOST  2               /* messages that count in one queue, and in one worker's hands */

typedef Instance {
    byte revision, position, taken, inbox, applied, wake, token;   /* the document; inbox: its sequence */
    bit there, waiting, sent, held;                                /* waiting: it is in the index of waits */
    byte holder, queue;                                            /* its lease; wake-ups under way */
    bit mark, past, missed;                                        /* on the lease; the sleep is over; looked for in vain */
    byte accepted, begun, got   /* for the checker: requests; runs of the step without excuse; events, by bit */
}
Instance I[INSTANCES];
byte logged, processed, announced;      /* events: how many are in the log; the others by bit */
byte n[WORKERS + 1], at[WORKERS + 1];   /* by worker: messages in its hands; its instance + 1, or 0 */
bit again[WORKERS + 1];                 /* more came for its instance since the last load */
bit same[WORKERS + 1];                  /* wake_at is still what it read; place 0 is the scheduler's */
bit ran[WORKERS + 1];                   /* it has begun a body under its lease */
byte clients, dying, crashes, losses, unknowns, duplicates, yields, stops, rounds;
bit fault, dispatching;
hidden byte k;

#define DUE(i)    ((I[i].wake == TIMER && I[i].past) || (rounds < ROUNDS && (I[i].wake == LATE || I[i].wake == EARLY)))
/* It has come, or may have: a hold that compares no more than that is for what is sent in any case. */
#define STILL_DUE(i) ((I[i].wake == TIMER && I[i].past) || I[i].wake == LATE || I[i].wake == EARLY)
#define UNSEEN(e) (logged > e && !((processed | announced) & (1 << e)))

inline moved(i)    { for (k : 0 .. WORKERS) { same[k] = same[k] && at[k] != i + 1 } }
inline send(i)     { I[i].queue = (I[i].queue < MOST -> I[i].queue + 1 : MOST) }
inline excuse(i)   { I[i].begun = I[i].begun - ran[w]; ran[w] = 0 }   /* the step may run once more */
#define MAY_DIE    if :: true :: crashes < CRASHES -> crashes++; fault = 1; goto over fi

/* To a backup time, unless that is no earlier than what is there. */
inline lower(i) {
    if
    :: I[i].wake == NEVER -> I[i].wake = LATE; moved(i)
    :: I[i].wake != NEVER
    :: I[i].wake == LATE -> moved(i)
    :: TIMERS && (I[i].wake == TIMER || I[i].wake == LATE) -> I[i].wake = EARLY; moved(i)
    fi
}

/* What one commit changes. */
inline store(i) {
    assert(I[i].position == position && I[i].taken == taken && I[i].applied == applied);   /* promise 3 */
    if
    :: found ->
        assert(!(I[i].got & (1 << taken)));   /* promise 5 */
        I[i].got = I[i].got | (1 << taken);
        I[i].taken = taken + KEPT(REMEMBERING)
    :: else
    fi;
    I[i].position = position + result + found;
    if
    :: result || found -> I[i].begun = 0; for (k : 1 .. WORKERS) { ran[k] = ran[k] && at[k] != i + 1 }
    :: else
    fi;
    I[i].wake = WAKE(I[i].position, inbox);
    if :: KEPT(WAIT_IN_STATE) -> I[i].waiting = WAITS(I[i].position) :: else fi;
    I[i].applied = inbox; I[i].inbox = inbox; I[i].revision = revision + 1; I[i].token = w;
    I[i].sent = 0; I[i].held = 0; moved(i); same[w] = 1
}

/* What a worker may do to wake_at with what it knows: all is as it read it, or it is for an earlier time. */
#define CLEARED (!READY(position, applied) && !again[w] && !(stop && unseen) && \
    (!KEPT(MOVE_COMPARES) || (I[i].revision == revision && (I[i].inbox == inbox || !KEPT(MOVE_REQUESTS)) && \
    (same[w] || (k > I[i].wake && KEPT(MOVE_LOWERS))))))
inline move(i) { I[i].wake = k; wake = k; I[i].held = 0; I[i].sent = 0; moved(i); same[w] = 1 }

inline forget() {
    mine = 0; clean = 0; stop = 0; unseen = 0; early = 0; wake = 0; result = 0; found = 0; revision = 0;
    position = 0; taken = 0; inbox = 0; applied = 0
}

proctype Worker(byte w) {
    byte i, revision, position, taken, inbox, applied, wake, mine;
    bit result, found, stop, unseen, clean, early;
end_idle:
    do
    :: {
        atomic {
            if
            :: I[0].queue > 0 -> i = 0
            :: INSTANCES > 1 && I[INSTANCES - 1].queue > 0 -> i = INSTANCES - 1
            fi;
            I[i].queue--; at[w] = i + 1; n[w] = KEPT(ACK_LAST)
        }
begin:  atomic {   /* the lease, or a mark on it */
            again[w] = 0; same[w] = 0;
            if
            :: I[i].holder == 0 -> I[i].holder = w; I[i].mark = 0; goto load
            :: else -> I[i].mark = 1; mine = n[w]
            fi
        }
        atomic { if :: KEPT(LOWERING) && I[i].there && I[i].position < END -> I[i].sent = 0; lower(i) :: else fi }
        goto acknowledge;
load:   atomic {
            if :: I[i].there :: else -> goto missing fi;
            again[w] = 0; same[w] = 1; wake = I[i].wake; revision = I[i].revision; position = I[i].position;
            taken = I[i].taken; inbox = I[i].inbox; applied = I[i].applied;
            if :: WAITS(position) && !SUSPENDED(applied) :: else -> goto go fi
        }
look:   atomic {   /* into the event log, after the commit or the load that shows a new wait */
            if
            :: stops < STOPS -> stops++; stop = 1; unseen = 1; goto release
            :: found = logged > taken
            fi;
go:         if   /* what follows a wait, before it is stored that it is over */
            :: AHEAD && found && !result && inbox == applied && STEP(position + 1) -> if :: goto body :: true fi
            :: else
            fi;
            if
            :: result || found || inbox > applied -> goto commit
            :: else
            fi;
            if
            :: stops < STOPS -> stops++; stop = 1; goto release
            :: yields < YIELDS && READY(position, applied) -> yields++; goto release
            :: READY(position, applied)
            :: !READY(position, applied) && again[w] -> goto load
            :: !READY(position, applied) && !again[w] -> goto release
            fi;
body:       if   /* the body begins; who has lost the lease and does not know it yet is excused */
            :: I[i].holder == w ->
                I[i].begun++; ran[w] = 1;
                assert(position == I[i].position && I[i].begun == 1)   /* promise 2 */
            :: else
            fi;
            result = 1; early = !KEPT(LOOK_AFTER) && logged > taken
        }
commit: atomic {
            if
            :: unknowns < UNKNOWNS -> unknowns++; goto settle   /* it does not get there */
            :: !KEPT(REVISION) || (I[i].revision == revision && (I[i].inbox == inbox || !KEPT(INBOX))) -> store(i)
            :: KEPT(REVISION) && I[i].revision == revision && I[i].inbox != inbox && KEPT(INBOX) ->
                inbox = I[i].inbox; goto commit                 /* a new request: the same result once more */
            :: KEPT(REVISION) && I[i].revision != revision ->
                excuse(i); result = 0; found = 0; again[w] = 1; goto release
            fi;
            if
            :: unknowns < UNKNOWNS -> unknowns++; goto settle   /* its answer gets lost */
            :: true
            fi;
committed:  unseen = result || found || (SUSPENDED(applied) && KEPT(LOOK_RESUMED));
            position = position + result + found; taken = taken + found;
            revision++; applied = inbox; result = 0; found = 0;
            unseen = unseen && WAITS(position) && !SUSPENDED(applied);
            wake = WAKE(position, applied);
            if
            :: !KEPT(WAIT_IN_STATE) || !KEPT(REMEMBERING)
            :: KEPT(WAIT_IN_STATE) && KEPT(REMEMBERING) && !(unseen && KEPT(LOOK_AFTER)) ->
                found = unseen && early; unseen = 0; goto go
            :: KEPT(WAIT_IN_STATE) && KEPT(REMEMBERING) && unseen && KEPT(LOOK_AFTER) -> unseen = 0; goto look
            fi
        }
        atomic {   /* what should have been in the commit */
            I[i].waiting = WAITS(position); I[i].taken = taken;
            if :: unseen -> unseen = 0; goto look :: else -> goto go fi
        }
settle: atomic {
            if
            :: !KEPT(SETTLING) -> result = 0; found = 0; goto go
            :: KEPT(SETTLING) && I[i].revision == revision + 1 && I[i].token == w -> goto committed
            :: else -> goto commit
            fi
        }
missing:
        atomic {   /* sent for too early; who gives up has looked for longer than what is in time takes */
            if
            :: I[i].there && KEPT(PATIENCE) -> goto load
            :: !I[i].there && KEPT(PATIENCE) -> I[i].missed = 1
            :: !KEPT(PATIENCE)
            fi
        }
        atomic {
            clean = I[i].holder == w && !(I[i].mark && KEPT(MARK));
            if :: I[i].holder == w -> I[i].holder = 0; I[i].mark = 0 :: else fi;
            if :: again[w] || !clean -> clean = 0; goto begin :: else -> mine = n[w]; goto acknowledge fi
        }
release:
        atomic {   /* nothing to do: wake_at need not cover the holder's death any more */
            k = (SLEEPS(position) && !SUSPENDED(applied) -> TIMER : NEVER);
            if
            :: k != wake && CLEARED && KEPT(MOVE_UNDER_LEASE) -> move(i)
            :: else
            fi
        }
        atomic {
            clean = (I[i].holder == w || !KEPT(OWNER)) && !(I[i].mark && KEPT(MARK)) || position == END;
            if :: I[i].holder == w || !KEPT(OWNER) -> I[i].holder = 0; I[i].mark = 0 :: else fi;
            unseen = unseen && KEPT(STOP_UNSEEN);
            if
            :: !stop && (again[w] || !clean) -> clean = 0; goto begin
            :: (stop && (again[w] || !clean || unseen)) || (clean && !again[w] && READY(position, applied)) ->
                again[w] = 0; mine = n[w]; goto forward
            :: else -> n[w] = 0
            fi;
            if :: KEPT(MOVE_UNDER_LEASE) -> goto acknowledge :: else fi
        }
        atomic {
            k = (SLEEPS(position) && !SUSPENDED(applied) -> TIMER : NEVER);
            if :: k != wake && CLEARED -> move(i) :: else fi;
            goto acknowledge
        }
forward:
        atomic {   /* that it is sent is stored first: who gets it must not take this one for dead */
            if
            :: I[i].revision == revision && I[i].inbox == inbox && same[w] ->
                I[i].wake = LATE; I[i].held = 0; I[i].sent = 1; moved(i)
            :: else
            fi
        }
        atomic { send(i) }
acknowledge:
        atomic {   /* not what has come meanwhile: nobody has looked since */
            n[w] = (KEPT(LATECOMERS) -> n[w] - mine : 0);
            forget(); same[w] = 0;
            if
            :: n[w] > 0 || again[w] -> goto begin
            :: else -> at[w] = 0; i = 0
            fi
        }
    } unless { atomic { dying == w ->   /* its messages come back; its lease stays until it ends by itself */
        dying = 0; fault = 1; excuse(i);
        for (k : 1 .. n[w]) { send(i) }
        if :: I[i].holder == w -> I[i].holder = DEAD :: else fi;
        n[w] = 0; at[w] = 0; again[w] = 0; same[w] = 0; i = 0; forget()
    } }
    od
}

proctype Scheduler() {
    byte i;
    bit saw;
end_wait:
    atomic {
        if
        :: DUE(0) -> i = 0
        :: INSTANCES > 1 && DUE(INSTANCES - 1) -> i = INSTANCES - 1
        fi;
        if :: I[i].wake == TIMER || ROUNDS == FOREVER :: else -> rounds++ fi;
        at[0] = i + 1; same[0] = 1; saw = I[i].sent || I[i].held
    }
    atomic {
        MAY_DIE;
        if
        :: !same[0] && KEPT(HOLD_COMPARES) -> goto over
        :: same[0] || !KEPT(HOLD_COMPARES) || (!saw && STILL_DUE(i)) -> I[i].wake = LATE; I[i].held = 1; moved(i)
        fi
    }
    atomic {
        MAY_DIE;
        if :: saw && ROUNDS != FOREVER :: send(i) fi;   /* behind a long backlog what was sent is not sent again */
over:   at[0] = 0; same[0] = 0; saw = 0; i = 0; goto end_wait
    }
}

/* The other half of the scheduler's round: events that nobody has seen through. */
proctype Sweep() {
end_wait:
    do
    :: atomic { UNSEEN(0) -> announced = announced | 1 }
    :: atomic { UNSEEN(1) -> announced = announced | 2 }
    od
}

/* Wakes those who wait for an event. Its own message stays in the queue until the end. */
proctype Dispatcher() {
    byte e, found;
end_wait:
    atomic { announced != 0 -> e = (announced & 1 -> 0 : 1); dispatching = 1 }
    atomic {
        if :: processed & (1 << e) -> goto done :: else fi;
        for (k : 0 .. INSTANCES - 1) { found = found | (I[k].waiting << k) }
    }
    atomic {
        MAY_DIE;
        if :: !KEPT(WAKE_FIRST) -> processed = processed | (1 << e) :: else fi
    }
    atomic {
        MAY_DIE;
        if :: found & 1 -> send(0) :: else fi;
        if :: found & 2 -> send(INSTANCES - 1) :: else fi
    }
    atomic { MAY_DIE; processed = processed | (1 << e) }
done:
    atomic {
        MAY_DIE;
        announced = announced & ~(1 << e);
over:   dispatching = 0; e = 0; found = 0; goto end_wait
    }
}

/* Clients, which do as much as they like. What they leave undone when they die, the scheduler finds. */
proctype Starter(byte i) {
    bit told;
    atomic { if :: AHEAD -> send(i); told = 1 :: true fi }
    atomic { MAY_DIE; I[i].there = 1; I[i].wake = LATE; I[i].sent = 1 }
    atomic {
        MAY_DIE;
        if :: told && !(I[i].missed && KEPT(TOLD_AGAIN)) :: else -> send(i) fi;
over:   told = 0; clients--
    }
}

proctype Publisher() {
    do
    :: atomic { logged < EVENTS -> logged++ }
        atomic {
            MAY_DIE;
            announced = announced | (1 << (logged - 1));
over:       skip
        }
    :: atomic { clients--; break }
    od
}

proctype Requester() {
    byte asked;
    do
    :: atomic { asked < REQUESTS && I[0].there && I[0].position < END ->
            asked++; I[0].inbox++; I[0].accepted++; lower(0) }
        atomic {
            MAY_DIE;
            send(0);
over:       skip
        }
    :: atomic { asked = 0; clients--; break }
    od
}

/* The broker gives a busy worker more messages for its instance, and some messages twice. */
proctype Broker(byte i) {
    byte w;
end_wait:
    do
    :: atomic { I[i].queue > 0 && duplicates < DUPLICATES -> duplicates++; send(i) }
    :: atomic { I[i].queue > 0 ->
            select (w : 1 .. WORKERS);
            if :: at[w] == i + 1 && n[w] < MOST -> I[i].queue--; n[w]++; again[w] = 1 :: else fi;
            w = 0 }
    od
}

/* What time and misfortune do. */
proctype Faults(byte i) {
    byte w;
end_wait:
    do
    :: atomic { SLEEPS(I[i].position) && !I[i].past -> I[i].past = 1 }
    :: atomic { I[i].holder == DEAD -> I[i].holder = 0; I[i].mark = 0 }
    :: atomic { losses < LOSSES && I[i].holder != 0 && I[i].holder != DEAD ->
            losses++; fault = 1; w = I[i].holder; excuse(i); w = 0; I[i].holder = 0; I[i].mark = 0 }
    :: atomic { crashes < CRASHES && !dying ->
            select (w : 1 .. WORKERS);
            if :: at[w] == i + 1 -> dying = w; crashes++ :: else fi;
            w = 0 }
    od
}

/* Promises 1, 4, 5 and 8: when all is quiet nothing is undone; after a fault the scheduler will be at it. */
#define BUSY(w)    (w <= WORKERS && at[w])
#define QUIET(i)   (!clients && !dispatching && !announced && !at[0] && !BUSY(1) && !BUSY(2) && !I[i].queue)
#define UNDONE(i)  (I[i].there && (I[i].accepted > I[i].applied || (I[i].position < END && !SUSPENDED(I[i].applied) && (!WAITS(I[i].position) || logged > I[i].taken))))
#define IN_TIME(i) (SLEEPS(I[i].position) && I[i].accepted == I[i].applied && I[i].wake >= TIMER)
#define COVERED(i) (fault && (I[i].wake != NEVER || UNSEEN(0) || UNSEEN(1)))

proctype Watch(byte i) {
end_wait:
    atomic { QUIET(i) && !BUSY(WORKERS) && UNDONE(i) && !IN_TIME(i) && !COVERED(i) -> assert(false) }
}

init {
    byte c;
    atomic {
        for (c : 0 .. INSTANCES - 1) {
            clients++;
            run Starter(c); run Broker(c); run Faults(c); run Watch(c)
        }
        for (c : 1 .. WORKERS) { run Worker(c) }
        run Scheduler();
        if :: EVENTS > 0 -> clients++; run Publisher(); run Dispatcher(); run Sweep() :: else fi;
        if :: REQUESTS > 0 -> clients++; run Requester() :: else fi;
        c = 0
    }
}

#ifdef LIVENESS
ltl progress { <> [] !UNDONE(0) }
#endif
