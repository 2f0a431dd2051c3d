package answer

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"a3os.app/libs/access"
	"a3os.app/libs/fault"
)

// mostEdges bounds the grants, expansions and entitlements that all questions of the moment hold in memory together, some 150 bytes each.
const mostEdges = 3_000_000

// Declared errors.
var (
	// ErrTooWide is returned for a question whose answer rests on more than memory has room for.
	ErrTooWide = fault.Declare(fault.ResourceExhausted, "QUESTION_TOO_WIDE", "the answer rests on too many grants to be held in memory: ask about one entitlement, or about one principal")
	// ErrBusy is returned while other wide questions take the room.
	ErrBusy = fault.Declare(fault.ResourceExhausted, "WIDE_QUESTIONS", "other questions about very many grants are being answered: try again shortly")
)

// memory is what questions hold.
type memory struct{ edges atomic.Int64 }

// graph is the graph of a question; done gives back what it held.
func (m *memory) graph(e edges) (g *access.Graph, done func()) {
	spend, done := m.spending()
	return access.NewGraph(e).Spending(spend), done
}

func (m *memory) spending() (spend func(edges int) error, done func()) {
	var own int64
	spend = func(n int) error {
		own += int64(n)
		switch all := m.edges.Add(int64(n)); {
		case own > mostEdges:
			return ErrTooWide
		case all > mostEdges:
			return ErrBusy
		}
		return nil
	}
	return spend, func() { m.edges.Add(-own) }
}

const (
	// mostKept bounds the answers that are kept for their next pages, in bytes, and keepFor how long one is kept after it was last used.
	mostKept = 48 << 20
	keepFor  = 2 * time.Minute
)

// kept are answers for which more pages may be asked. An answer follows from a publication, which never changes, and its key names the
// workspace and the publication: what is kept can be forgotten and never be wrong. Names in it are those of when it was made.
type kept struct {
	mu      sync.Mutex
	answers []keptAnswer // the one used last at the end
	size    int
	sweep   *time.Timer
}

type keptAnswer struct {
	key    string
	answer any
	size   int
	used   time.Time
}

// get answers what is kept under a key, or nil. Under the empty key nothing is kept.
func (k *kept) get(key string) any {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := slices.IndexFunc(k.answers, func(a keptAnswer) bool { return a.key == key })
	if at < 0 {
		return nil
	}
	a := k.answers[at]
	a.used = time.Now()
	k.answers = append(slices.Delete(k.answers, at, at+1), a)
	return a.answer
}

// put keeps an answer of a size in bytes. One that is too large for everything isn't kept: each of its pages is worked out anew.
func (k *kept) put(key string, answer any, size int) {
	if key == "" || size > mostKept {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if at := slices.IndexFunc(k.answers, func(a keptAnswer) bool { return a.key == key }); at >= 0 {
		k.drop(at)
	}
	k.answers = append(k.answers, keptAnswer{key: key, answer: answer, size: size, used: time.Now()})
	k.size += size
	for k.size > mostKept {
		k.drop(0)
	}
	if k.sweep == nil {
		k.sweep = time.AfterFunc(keepFor, k.forget)
	}
}

// forget drops what was not used for a while, so that an idle service holds nothing.
func (k *kept) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for len(k.answers) > 0 && time.Since(k.answers[0].used) >= keepFor {
		k.drop(0)
	}
	if k.sweep = nil; len(k.answers) > 0 {
		k.sweep = time.AfterFunc(keepFor, k.forget)
	}
}

func (k *kept) drop(at int) {
	k.size -= k.answers[at].size
	k.answers = slices.Delete(k.answers, at, at+1)
}
