package workload

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// handshakesAtOnce is how many handshakes of a server of the control plane are worked on at once. When thousands of sets come back
	// together, all of them at once would each take longer than it may, and none would be done; a few after the other are.
	handshakesAtOnce = 64
	// handshakeHold is how long one may take of the others' time: a client that stalls loses its place, and not its connection.
	handshakeHold = time.Second
	// handshakeWait is how long one waits for its turn, less than the connection may take in all.
	handshakeWait = 8 * time.Second
)

var errCrowded = errors.New("too many connections are being made at once")

// takingTurns has handshakes with this configuration wait for each other once the client has said something, so that who is silent takes
// nobody's turn.
func takingTurns(config *tls.Config, atOnce int64) {
	turns := semaphore.NewWeighted(atOnce)
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		ctx, cancel := context.WithTimeout(hello.Context(), handshakeWait)
		defer cancel()
		if err := turns.Acquire(ctx, 1); err != nil {
			return nil, fmt.Errorf("%w: %w", errCrowded, err)
		}
		leave := sync.OnceFunc(func() { turns.Release(1) })
		late := time.AfterFunc(handshakeHold, leave)
		// The context ends with the handshake.
		context.AfterFunc(hello.Context(), func() {
			late.Stop()
			leave()
		})
		return nil, nil //nolint:nilnil // the configuration stays as it is
	}
}
