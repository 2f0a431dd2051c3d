// Package posixlog measures Tessera's POSIX driver, the field's own tiled log on files, as something to hold our sealer beside. It is
// no part of the product.
package posixlog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

// Batch is how many entries Tessera integrates at once: as many as our sealer takes.
const Batch = 4000

// entries is how many are added a round, and size their length: that of an event of ours.
const entries, size = 20_000, 220

// Measure answers the median of entries integrated a second over some rounds, each into a new log.
func Measure(ctx context.Context, rounds int) (float64, error) {
	var rates []float64
	for range rounds {
		rate, err := round(ctx)
		if err != nil {
			return 0, fmt.Errorf("measure Tessera's POSIX driver: %w", err)
		}
		rates = append(rates, rate)
	}
	slices.Sort(rates)
	return rates[len(rates)/2], nil
}

func round(ctx context.Context) (_ float64, err error) {
	dir, err := os.MkdirTemp("", "a3-bench-log-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	secret, _, err := note.GenerateKey(rand.Reader, "bench.a3os.app/log")
	if err != nil {
		return 0, err
	}
	signer, err := note.NewSigner(secret)
	if err != nil {
		return 0, err
	}
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	appender, shutdown, _, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().WithCheckpointSigner(signer).
		WithCheckpointInterval(time.Second).WithBatching(Batch, 100*time.Millisecond).WithPushback(2*Batch))
	if err != nil {
		return 0, err
	}
	const adders = 2 * Batch
	var all sync.WaitGroup
	failed := make(chan error, adders)
	left := make(chan []byte, entries)
	for i := range entries {
		left <- fmt.Appendf(nil, "%0*d", size, i)
	}
	close(left)
	began := time.Now()
	for range adders {
		all.Go(func() {
			for entry := range left {
				if _, err := appender.Add(ctx, tessera.NewEntry(entry))(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	all.Wait()
	took := time.Since(began)
	close(failed)
	if err := <-failed; err != nil {
		return 0, err
	}
	return entries / took.Seconds(), shutdown(ctx)
}
