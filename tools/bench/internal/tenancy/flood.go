package tenancy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync"
	"time"
)

const (
	tokenVariable = "BENCH_FLOOD_TOKEN"
	// connections of a flood: what it sends in the two seconds that a call may wait at the gateway, and as much again, has a stream each, of
	// which a connection has 250. A flood with fewer places than that would send what the gateway answers, and not what it is told to.
	connections = 32
	places      = connections * 250
	// leastOfAll is how much of what it is told to send a flood sends at least, to be one.
	leastOfAll = 0.9
)

// flooded is what a flood says of itself in the end.
type flooded struct {
	// Sent is how many calls were written to a connection whole, until it was told to end; Served and Refused (429, 408) are how many of them were answered.
	Sent, Served, Refused int
	// Took is how long it lasted.
	Took time.Duration
}

func (f *flooded) add(one flooded) {
	f.Sent, f.Served, f.Refused, f.Took = f.Sent+one.Sent, f.Served+one.Served, f.Refused+one.Refused, f.Took+one.Took
}

func (f *flooded) perSecond(n int) float64 { return float64(n) / f.Took.Seconds() }

// enough says why a flood is less than it is called.
func (f *flooded) enough() error {
	if sent := f.perSecond(f.Sent); !(sent >= leastOfAll*share*times) {
		return fmt.Errorf("the neighbour sent %.0f times a second, which is too little for %d: measure on a machine that does nothing else", sent, share*times)
	}
	return nil
}

// flood starts a process that floods until stop is called.
func (c *caller) flood(ctx context.Context, program string) (stop func() (flooded, error), err error) {
	cmd := c.command(ctx, program, "flood")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	// It floods from its first line on.
	lines.Scan()
	return func() (flooded, error) {
		err := in.Close()
		lines.Scan()
		var f flooded
		wrong := json.Unmarshal(lines.Bytes(), &f)
		return f, errors.Join(err, wrong, cmd.Wait())
	}, nil
}

// Flood is the life of the process that floods: it sends calls until its input ends, a hundred times a tenant's share, whatever is answered, and
// says in the end how many were sent, served and refused.
func Flood(ctx context.Context, url, ca, dial string, in io.Reader, out io.Writer) error {
	const lowest = 19
	if err := priority(lowest); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return flood(ctx, &caller{URL: url, Token: os.Getenv(tokenVariable), CA: ca, Dial: dial}, in, out)
}

func flood(ctx context.Context, c *caller, in io.Reader, out io.Writer) error {
	var callers [connections]*caller
	for n := range callers {
		one := *c
		callers[n] = &one
		if err := one.open(); err != nil {
			return err
		}
		// Its connection is there before the flood begins, which is one of calls.
		if _, err := one.ask(ctx); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, in)
		stop()
	}()
	fmt.Fprintln(out, "flooding")
	began := time.Now()
	var calls sync.WaitGroup
	var mu sync.Mutex
	var said flooded
	var failed error
	free := make(chan struct{}, places)
	tick := time.NewTicker(time.Second / share)
	defer tick.Stop()
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(info httptrace.WroteRequestInfo) {
		mu.Lock()
		defer mu.Unlock()
		if info.Err == nil && ctx.Err() == nil {
			said.Sent++
		}
	}})
	for begun := 0; ctx.Err() == nil; {
		// By the clock: a beat that came late, as they do at the lowest priority, is made up for.
		for due := int(time.Since(began).Seconds() * share * times); begun < due; begun++ {
			select {
			case free <- struct{}{}:
			default:
				continue
			}
			from := callers[begun%connections]
			calls.Go(func() {
				defer func() { <-free }()
				status, err := from.ask(traced)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case ctx.Err() != nil:
				case err != nil:
					failed = errors.Join(failed, err)
					stop()
				case status == http.StatusOK:
					said.Served++
				case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout:
					// The latter where it came in parts, and the place was another's meanwhile.
					said.Refused++
				default:
					failed = fmt.Errorf("the flood is answered %d", status)
					stop()
				}
			})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	said.Took = time.Since(began)
	calls.Wait()
	return errors.Join(failed, json.NewEncoder(out).Encode(said))
}
