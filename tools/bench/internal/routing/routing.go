// Package routing measures how soon a change of routes is live where there are ten thousand tenants: from the call that publishes it to
// the first request that the gateway leads along it, beside Caddy, whose admin API is given the same change of the same routes. It
// promises a plane of its own, that requests go on all the while on a route that doesn't change, and that one of those that fails is an
// error. Caddy has it easier: it speaks plain HTTP, to no database, keeps nothing on disk and signs nothing.
package routing

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"sync/atomic"
	"time"

	"a3os.app/tools/bench/internal/figure"
)

// Config says how to measure.
type Config struct {
	// Root is the checkout, whose bin/fleet makes the plane.
	Root string
	// Rounds is how often p99 is taken; at least figure.Rounds.
	Rounds int
	// Routes is how many tenants there are.
	Routes int
}

const (
	// each is how many changes a round has.
	each = 10
	// giveUp is when a change that isn't live ends the measurement.
	giveUp = 60 * time.Second
)

// Measure answers the figure. Where there is no Caddy, or no plane was built, it is one that wasn't measured.
func Measure(ctx context.Context, cfg Config) (f figure.Figure, err error) {
	f = figure.Figure{
		Name: "publish to live, p99 ÷ Caddy's admin API", Unit: "ms",
		Measured: figure.Series{What: "registry to gateway"}, Against: figure.Series{What: "Caddy's admin API to Caddy"},
		Bound: figure.Bound{AtMost: 0.1},
	}
	program, err := exec.LookPath("caddy")
	if err != nil {
		f.NotMeasured = "there is no caddy: install it, as apt-get install caddy"
		return f, nil
	}
	dir, err := os.MkdirTemp("", "a3-bench-")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ours, err := newPlane(ctx, cfg, dir)
	if err != nil {
		return f, fmt.Errorf("make a plane of %d tenants: %w", cfg.Routes, err)
	}
	defer func() { err = errors.Join(err, ours.close(context.WithoutCancel(ctx))) }()
	theirs, err := newCaddy(ctx, cfg, dir, program, ours.upstream.URL)
	if err != nil {
		return f, fmt.Errorf("start Caddy with %d routes: %w", cfg.Routes, err)
	}
	defer theirs.close()
	var measured, against []float64
	var steady atomic.Int64
	// The first round warms caches and is not counted.
	for round := range cfg.Rounds + 1 {
		a, err := p99(ctx, ours, round, &steady)
		if err != nil {
			return f, fmt.Errorf("round %d of ours: %w", round, err)
		}
		b, err := p99(ctx, theirs, round, &steady)
		if err != nil {
			return f, fmt.Errorf("round %d of Caddy's: %w", round, err)
		}
		if round > 0 {
			measured, against = append(measured, a), append(against, b)
		}
	}
	f.Note = fmt.Sprintf("%d routes, %d changes a round and side; %d requests on routes that did not change went on meanwhile and none failed", cfg.Routes, each, steady.Load())
	return f, f.Fill(measured, against)
}

// router is one side: something that is told of routes and leads requests along them.
type router interface {
	// change makes the path, which led nowhere, lead to the upstream, and returns when it was told.
	change(ctx context.Context, path string) error
	// leads says whether the path leads there now.
	leads(ctx context.Context, path string) (bool, error)
	// steady is a path that always leads there.
	steady() string
}

// p99 makes a round's changes and answers the 99th percentile of how long they took to be live, in milliseconds.
func p99(ctx context.Context, r router, round int, steady *atomic.Int64) (float64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- keepAsking(ctx, r, steady) }()
	var took []float64
	for i := range each {
		t, err := live(ctx, r, fmt.Sprintf("/r%dc%d", round, i))
		if err != nil {
			return 0, err
		}
		took = append(took, t)
	}
	cancel()
	if err := <-ended; err != nil {
		return 0, err
	}
	slices.Sort(took)
	const percentile = 0.99
	return took[int(math.Ceil(percentile*float64(len(took))))-1], nil
}

func live(ctx context.Context, r router, path string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, giveUp)
	defer cancel()
	if there, err := r.leads(ctx, path); err != nil || there {
		return 0, fmt.Errorf("%s leads somewhere before it was published (%w)", path, errors.Join(err, errors.ErrUnsupported))
	}
	began := time.Now()
	told := make(chan error, 1)
	go func() { told <- r.change(ctx, path) }()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		there, err := r.leads(ctx, path)
		if err != nil {
			return 0, err
		}
		if there {
			took := float64(time.Since(began)) / float64(time.Millisecond)
			return took, <-told
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("%s is not live after %s: %w", path, giveUp, context.Cause(ctx))
		}
	}
}

// keepAsking asks on the route that doesn't change until ctx ends; a request that fails before is an error.
func keepAsking(ctx context.Context, r router, asked *atomic.Int64) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		switch there, err := r.leads(ctx, r.steady()); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("a request on a route that did not change failed: %w", err)
		case !there:
			return errors.New("a request on a route that did not change led nowhere")
		}
		asked.Add(1)
	}
}

// ask says whether a URL leads to the upstream: it answers 200, and a router without a route 404.
func ask(ctx context.Context, client *http.Client, url string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err
	}
	res, err := client.Do(req)
	if err != nil {
		return false, err
	}
	if err := res.Body.Close(); err != nil {
		return false, err
	}
	switch res.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	}
	return false, fmt.Errorf("%s answered %s", url, res.Status)
}
