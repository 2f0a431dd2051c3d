package turns

import (
	"sync"
	"sync/atomic"
	"time"
)

// lately is for how long after it came a tenant counts as one that does, once to twice.
const lately = time.Minute

// Neighbours are the tenants that come, with calls or with new connections: while one alone does, there is nobody to keep it from, and it waits for
// no turn. The zero Neighbours are ready.
type Neighbours struct {
	mu sync.Mutex
	// period is the last one in which somebody came. came is how many tenants did in it, before how many in the one before it and not in it.
	period       int64
	came, before int
	several      atomic.Bool
}

// Neighbour is one of them. The zero Neighbour is ready.
type Neighbour struct {
	// seen is the last period in which it came.
	seen atomic.Int64
}

// Comes counts a tenant, once a period, and says whether others came lately.
func (n *Neighbours) Comes(one *Neighbour) (others bool) {
	if one.seen.Load() != period() {
		n.count(one)
	}
	return n.several.Load()
}

// period is the one that it is now. The first is nobody's last one.
func period() int64 { return 1 + time.Now().Unix()/int64(lately/time.Second) }

func (n *Neighbours) count(one *Neighbour) {
	n.mu.Lock()
	defer n.mu.Unlock()
	// A clock that was set back brings no period again.
	now := max(period(), n.period)
	was := one.seen.Swap(now)
	if was == now {
		return
	}
	if now > n.period {
		n.before = 0
		if now == n.period+1 {
			n.before = n.came
		}
		n.period, n.came = now, 0
	}
	if was == now-1 {
		n.before--
	}
	n.came++
	n.several.Store(n.came+n.before > 1)
}
