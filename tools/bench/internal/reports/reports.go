// Package reports measures what the registry takes: reports of ten thousand sets over the real link, each set with a certificate of its own
// tenant's authority, on a connection of its own. It promises a plane of its own, that the registry was started anew with all sets at its
// door, and that a set whose report was not kept in the end is an error. What one core takes is reports by the processor time of the
// registry's process, without its database's: it doesn't depend on what else the machine does. How long a report takes does, and is measured at the
// rate that is offered.
package reports

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"a3os.app/tools/bench/internal/figure"
)

// Config says how to measure.
type Config struct {
	// Root is the checkout, whose bin/fleet makes the plane.
	Root string
	// Rounds is how often all sets report; at least figure.Rounds.
	Rounds int
	// Sets is how many there are.
	Sets int
}

const (
	// giveUp is when a set that could not report ends the measurement.
	giveUp = 3 * time.Minute
	// perSecond is how many report in a second: a round is spread over the time that this takes.
	perSecond = 833
	// spread is what sets wait at most before they come back, as services/audit/internal/report.Link has them wait when there are so many.
	spread     = 10 * time.Second
	percentile = 0.99
)

// Measure answers the figure.
func Measure(ctx context.Context, cfg Config) (f figure.Figure, err error) {
	f = figure.Figure{
		Name: "reports of sets on one core", Unit: "reports/s",
		Measured: figure.Series{What: "taken in a second of the processor time of the registry's process, its database's not included"}, Against: figure.Series{What: "reported in a second"},
		Bound: figure.Bound{AtLeast: 1},
	}
	dir, err := os.MkdirTemp("", "a3-bench-")
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p, err := newPlane(ctx, cfg, dir)
	if err != nil {
		return f, fmt.Errorf("make a plane of %d sets: %w", cfg.Sets, err)
	}
	defer func() { err = errors.Join(err, p.close(context.WithoutCancel(ctx))) }()
	storm, err := p.restart(ctx)
	if err != nil {
		f.NotMeasured = err.Error()
		return f, nil
	}
	var measured, against, p99s []float64
	for range cfg.Rounds {
		before, err := p.cpu()
		if err != nil {
			return f, err
		}
		began := time.Now()
		round, err := p.round(ctx, time.Duration(cfg.Sets)*time.Second/perSecond)
		if err != nil {
			return f, err
		}
		took := time.Since(began)
		after, err := p.cpu()
		if err != nil {
			return f, err
		}
		measured = append(measured, float64(round.kept)/(after-before).Seconds())
		against = append(against, float64(round.kept)/took.Seconds())
		p99s = append(p99s, quantile(round.took))
	}
	slices.Sort(p99s)
	f.Note = fmt.Sprintf("%d sets, each with its own authority, certificate and connection, 5 components a report; p99 %.0f ms, which is no figure of one core: it is at the %d a second that are offered, on all processors, of the try that was kept, the sets' own work and the database's included (median of the rounds); "+
		"after a restart of the registry all had reported after %.1f s, %d connections were tried more than once and %d reports were given an appointment (%d make connections at once); %.0f MB resident",
		cfg.Sets, p99s[len(p99s)/2], perSecond, storm.took.Seconds(), storm.tried, storm.deferred, connecting, float64(p.resident())/(1<<20))
	return f, f.Fill(measured, against)
}

// quantile is in milliseconds.
func quantile(took []time.Duration) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return float64(took[int(math.Ceil(percentile*float64(len(took))))-1]) / float64(time.Millisecond)
}
