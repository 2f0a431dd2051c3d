package turns

import (
	"container/list"
	"net/netip"
)

// queue is what waits, by where it came from.
type queue struct {
	waiting int
	by      map[netip.Prefix]*source
	// round is of *source, each with something waiting, the one whose turn is next in front.
	round list.List
}

// source is one that calls.
type source struct {
	from    netip.Prefix
	inRound *list.Element
	// calls is of *call, the oldest in front.
	calls list.List
}

// call is one that waits.
type call struct {
	// turn is told, once, that the call may begin, or why it may not.
	turn   chan error
	source *source
	// inLine is nil once the call waits no longer.
	inLine *list.Element
}

func (q *queue) push(from netip.Prefix) *call {
	s := q.by[from]
	if s == nil {
		if q.by == nil {
			q.by = map[netip.Prefix]*source{}
		}
		s = &source{from: from}
		s.inRound = q.round.PushBack(s)
		q.by[from] = s
	}
	// Whoever tells it does not wait for it to listen.
	c := &call{turn: make(chan error, 1), source: s}
	c.inLine = s.calls.PushBack(c)
	q.waiting++
	return c
}

// pop takes the oldest call of the source whose turn it is; nil where none waits.
func (q *queue) pop() *call {
	first := q.round.Front()
	if first == nil {
		return nil
	}
	s := first.Value.(*source) //nolint:forcetypeassert // nothing else is in the list
	q.round.MoveToBack(first)
	c := s.calls.Front().Value.(*call) //nolint:forcetypeassert // nothing else is in the list
	q.remove(c)
	return c
}

// shed takes the newest call of the source with the most of them, so that whoever floods is refused and not those beside it (as FQ-CoDel
// does, RFC 8290 §4.1.2). Something waits when it is called.
func (q *queue) shed() *call {
	var most *source
	for e := q.round.Front(); e != nil; e = e.Next() {
		if s := e.Value.(*source); most == nil || s.calls.Len() > most.calls.Len() { //nolint:forcetypeassert // nothing else is in the list
			most = s
		}
	}
	c := most.calls.Back().Value.(*call) //nolint:forcetypeassert // nothing else is in the list
	q.remove(c)
	return c
}

// remove takes a call out. It answers false for one that does not wait any longer.
func (q *queue) remove(c *call) bool {
	if c.inLine == nil {
		return false
	}
	s := c.source
	s.calls.Remove(c.inLine)
	c.inLine = nil
	q.waiting--
	if s.calls.Len() == 0 {
		q.round.Remove(s.inRound)
		delete(q.by, s.from)
	}
	return true
}
