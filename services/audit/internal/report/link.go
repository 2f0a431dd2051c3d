package report

import (
	"context"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

// Link makes the connections to the control plane. The first is made at once. One that is made again waits a moment that differs from set
// to set: when the registry restarts all of them lose theirs in the same moment, and gRPC comes back at once. How long the moment may be
// follows from how often the registry has sets report, which it has them do less often the more there are.
type Link struct {
	made  atomic.Bool
	pause atomic.Int64
}

// longestPause is less than a connection may take to be made.
const longestPause = 10 * time.Second

// Paced says how often the registry has this set report.
func (l *Link) Paced(every time.Duration) {
	const half = 2
	l.pause.Store(int64(min(every/half, longestPause)))
}

// Dial is for grpc.WithContextDialer.
func (l *Link) Dial(ctx context.Context, address string) (net.Conn, error) {
	if most := l.pause.Load(); l.made.Swap(true) && most > 0 {
		t := time.NewTimer(time.Duration(rand.N(most))) //nolint:gosec // G404: spreads load, guards nothing
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}
