"""The event stream: who hears what."""

from __future__ import annotations

from pfnmap.trace import Call, Event, Trace


def test_who_listens_hears_each_later_event_once_also_after_the_trace_was_drained():
    trace = Trace()
    before, first, second = Call("before"), Call("first"), Call("second")
    heard: list[Event] = []
    trace.emit(before)
    trace.listen(heard.append)
    trace.emit(first)
    assert trace.drain() == [before, first]
    trace.emit(second)
    assert trace.events == [second]
    assert heard == [first, second]


def test_what_was_drained_gets_no_further_events():
    trace = Trace()
    trace.emit(Call("first"))
    drained = trace.drain()
    trace.emit(Call("second"))
    assert drained == [Call("first")]
    assert trace.drain() == [Call("second")]
