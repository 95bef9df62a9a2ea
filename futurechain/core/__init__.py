"""The core: how futures are settled, and how that travels. It knows no pool, no picture and no Deferred.

Theory of operation
-------------------
*Ownership by removal.* A future has two words that decide everything. ``_outcome`` is `PENDING` until the future is
settled, then the value or a `Failure`. ``_dependents`` is the list of who is to be told; it is made with the future and
never replaced, closed or opened again. A pending future has one *ticket*, which lies in exactly one container; whoever
takes it out there, by one operation on one built-in container, owns the future, and alone may settle it.

=========  =====================================  =========  ================================  =======================
state      where its ticket is                    outcome    leaves by                         the step that decides
=========  =====================================  =========  ================================  =======================
waiting    the stage itself, in the list of its   PENDING    its source is settled; cancel;    ``remove`` on that list,
           source                                            timeout                           or ``del`` in its group
produced   `TICKET`, in its own list              PENDING    its producer; cancel; timeout     ``remove(TICKET)``
begun      `BEGUN`, in its own list               PENDING    what it returned is settled;      ``remove(BEGUN)``
                                                             cancel; timeout
announced  `RUNNING`, in its own list             PENDING    ``set_result`` and the like;      ``remove(RUNNING)``
                                                             cancel, where work can be
                                                             stopped
forwarded  as produced                            FORWARDED  as produced; its last holder      as produced;
                                                             drops it                          ``remove(PIN)`` makes the
                                                                                               weak hold strong
owned      nowhere                                PENDING    its handler has returned:         none: there is one owner
                                                             settled, produced, or begun
settled    --                                     set        never                             --
=========  =====================================  =========  ================================  =======================

*Waiting* is a local stage. *Produced* is all else: a bare future, a task, a stage for an executor (from the moment it
is made), a combination, a coroutine, a stage that was put off, and one whose handler has returned a pending future.
*Begun* is what has run on an executor, and returned a pending future: a queue may still hold it, since a waiting worker
takes what it waits for without looking for it there, and `begin` tells it from what nobody has run yet.
What lies in the list of a source on behalf of a produced future is no ticket, only something to be told (a `TakeOver`,
a group of `gather`); so it may be moved, doubled or dropped.

A ticket goes from *waiting* to *owned* to *produced*, on an executor from *produced* to *owned* to *begun*, and never
back; but for one that has gone with a call to a worker process, and comes back, to *produced*, if that has not begun
(`state.give_back`). So a canceller looks into the own list first, for the one and for the other, and into that of the
source then, and if it finds the ticket nowhere, the stage is running.

* *Attached, or too late?* Who settles stores the outcome **first** and empties the list **then**. Who attaches puts its
  entry in **first** and looks at the outcome **then**. Both have used the list in between, so one of the two sees the
  other. An attacher that finds the future settled takes its entry back: if it gets it, it goes on by itself; if not,
  the settler has it.
* *Order.* What was attached before the settling is told in that order; what a handler attaches to the very future comes
  after. What another thread attaches meanwhile may run at once there, as in the standard future.
* *Many dependents.* From the second on they stand in a `Group`, a dict at the end of the list: in order, each leaves in
  constant time, and "is anything left?" is "is it empty?".
* *Returned futures, forwarding, rings*: see `flatten`. *The end of a Twisted-family chain*: see `scheduler`. *What a
  thread has put off*: see `thread_state`. *Ctrl-C*: see `loop`.
* *Upward.* A stage holds its source, to cancel it; a bare future is held by a weak reference, so that a producer that
  drops it is noticed (`lost`).
* *Still wanted?* Who moves on from a forwarded stage is noted **first** and leaves its list **then**. Who asks looks
  into the list **first**, and **then** for those who have moved on.

Who may touch what
------------------
The core alone reads or changes ``_dependents`` and writes ``_outcome``; others may read ``_outcome``. For them there
are verbs: `state.new_pending`, `claim`, `begin`, `give_back`, `attach`, `detach`, `consumers`, `loop.settle`,
`cancel.let_go`. What stands in a list is a `state.Dependent`; what a future waits for, if it is no future, a
`state.Source`. A thread's `ThreadState` is touched by that thread alone.

To read, in this order: `state`, `handlers`, `loop`; then each for itself `thread_state`, `scheduler`, `flatten`,
`cancel`, `attaching` and what pays in its place (`fast`), `stdlib`, `lost`, `unobserved`, `observers`,
`callback_threads`.
"""

from __future__ import annotations

__all__: list[str] = []
