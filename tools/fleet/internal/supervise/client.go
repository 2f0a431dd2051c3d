package supervise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrNotRunning is that there is no supervisor.
var ErrNotRunning = errors.New("the plane is not running")

// Client speaks to the supervisor of a directory.
type Client struct {
	dir  Dir
	http *http.Client
	// token of one group; empty for who may read the control key.
	token string
}

// NewClient makes a client; it connects when it is used.
func NewClient(dir Dir) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", dir.Socket())
	}
	return &Client{dir: dir, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Bound makes a client that reaches the units of one group, with a token of TokenFor.
func Bound(dir Dir, token string) *Client {
	c := NewClient(dir)
	c.token = token
	return c
}

// Ping fails with ErrNotRunning where no supervisor answers. Any other error, as that ctx has ended, says nothing of whether one runs.
func (c *Client) Ping(ctx context.Context) error {
	_, err := c.States(ctx)
	return err
}

// Ensure starts a supervisor where none answers, and says whether it had to.
func (c *Client) Ensure(ctx context.Context, programs Programs) (started bool, err error) {
	if err := c.Ping(ctx); !errors.Is(err, ErrNotRunning) {
		return false, err
	}
	ended, err := detach(programs.Log, programs.Supervisor)
	if err != nil {
		return false, fmt.Errorf("start the supervisor: %w", err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for c.Ping(ctx) != nil {
		select {
		case err := <-ended:
			return false, fmt.Errorf("the supervisor ended while starting (%s): see %s", howEnded(err), programs.Log)
		case <-ctx.Done():
			return false, fmt.Errorf("wait for the supervisor: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
	return true, nil
}

// protocol is the number of what the supervisor understands of units and promises of their processes. It grows with either.
const protocol = 7

// About is what a supervisor is.
type About struct {
	// Protocol that it speaks; 0 for a release that did not say.
	Protocol int `json:"protocol"`
	// UID that it runs as.
	UID int `json:"uid"`
	// Unbounded says why memory and CPU of its processes have no bounds; empty where they have.
	Unbounded string `json:"unbounded"`
}

// Outdated says that a supervisor answers which keeps processes otherwise than one that is started now would: a release before this
// one started it, or another user did.
func (c *Client) Outdated(ctx context.Context) bool {
	if c.Ping(ctx) != nil {
		return false
	}
	about, err := c.About(ctx)
	if errors.Is(err, ErrNotRunning) || ctx.Err() != nil {
		return false
	}
	return about.Protocol != protocol || about.UID != os.Geteuid()
}

// About asks the supervisor what it is; one of a release before this one can't say. It fails with ErrNotRunning.
func (c *Client) About(ctx context.Context) (About, error) {
	var about About
	return about, c.do(ctx, http.MethodGet, "/about", nil, &about)
}

// Status is how all units are, in the order in which they start. It fails with ErrNotRunning.
func (c *Client) Status(ctx context.Context) ([]Status, error) {
	var out []Status
	return out, c.do(ctx, http.MethodGet, "/status", nil, &out)
}

// States is Status without what each process holds of memory: to count that takes the kernel longer than all else, and who only waits for
// processes asks often.
func (c *Client) States(ctx context.Context) ([]Status, error) {
	var out []Status
	return out, c.do(ctx, http.MethodGet, "/status?"+withoutMemory+"=1", nil, &out)
}

// withoutMemory is the parameter by which the supervisor is asked for states alone. One of a release before this one tells more.
const withoutMemory = "without_memory"

// Apply has a unit kept, and says whether that changed anything.
func (c *Client) Apply(ctx context.Context, u Unit) (changed bool, err error) {
	return changed, c.do(ctx, http.MethodPost, "/units", u, &changed)
}

// Drop has units stopped, all at once, and kept no longer.
func (c *Client) Drop(ctx context.Context, names ...string) (changed bool, err error) {
	did, errs := make([]bool, len(names)), make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { errs[i] = c.do(ctx, http.MethodDelete, "/units/"+url.PathEscape(name), nil, &did[i]) })
	}
	all.Wait()
	return slices.Contains(did, true), errors.Join(errs...)
}

// Stop has everything stopped and returns when the supervisor is gone too.
func (c *Client) Stop(ctx context.Context) error {
	daemon, err := c.dir.Daemon()
	if err != nil {
		return err
	}
	watcher, err := c.dir.Watcher()
	if err != nil {
		return err
	}
	if err := c.do(ctx, http.MethodPost, "/stop", nil, nil); err != nil {
		return err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for daemon.Alive() || watcher.Alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the supervisor to end: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
	return nil
}

// Await returns when all the named units serve. It fails with what a unit said last when that one keeps ending.
func (c *Client) Await(ctx context.Context, names ...string) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	var all []Status
	var waiting []string
	turn := ""
	for {
		now, err := c.turn(ctx, turn, &all)
		if ctx.Err() != nil && len(waiting) > 0 {
			return fmt.Errorf("%s did not say that it serves: see its log, %s", waiting[0], logOf(all, waiting[0]))
		}
		if err != nil {
			return err
		}
		if waiting, err = pending(all, names); err != nil || len(waiting) == 0 {
			return err
		}
		if turn = now; turn != "" {
			continue // the next answer comes when something has changed
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// turn reads States once they are others than at a turn that was answered before, and answers which turn that is; empty where the supervisor does
// not say. all stays as it is where it fails.
func (c *Client) turn(ctx context.Context, seen string, all *[]Status) (turn string, err error) {
	var now []Status
	header, err := c.ask(ctx, http.MethodGet, "/status?"+withoutMemory+"=1&"+afterTurn+"="+seen, nil, &now)
	if err == nil {
		*all = now
	}
	return header.Get(turnHeader), err
}

// hopeless is after how many ends in a row nobody waits for a process any longer.
const hopeless = 6

// patience is how long one that serves no more may answer nothing for it to be waited for.
const patience = 30 * time.Second

func pending(all []Status, names []string) ([]string, error) {
	by := map[string]Status{}
	for _, s := range all {
		by[s.Name] = s
	}
	var waiting []string
	for _, n := range names {
		s, ok := by[n]
		if !ok {
			return nil, fmt.Errorf("%s is not kept by the supervisor", n)
		}
		if s.State == Serving {
			continue
		}
		if s.State == NotAnswering && time.Since(s.Well) >= patience {
			return nil, fmt.Errorf("%s runs, process %d, and has not answered for %s: see its log, %s; %s has it started anew", n, s.PID, time.Since(s.Well).Truncate(time.Second), s.Log, s.Anew())
		}
		if s.Failures >= hopeless {
			return nil, fmt.Errorf("%s keeps ending: %s; its log %s ends with: %s", n, s.LastExit, s.Log, lastWords(s.Log))
		}
		waiting = append(waiting, n)
	}
	return waiting, nil
}

func logOf(all []Status, name string) string {
	for _, s := range all {
		if s.Name == name {
			return s.Log
		}
	}
	return ""
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	_, err := c.ask(ctx, method, path, in, out)
	return err
}

func (c *Client) ask(ctx context.Context, method, path string, in, out any) (http.Header, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://supervisor"+path, body)
	if err != nil {
		return nil, err
	}
	token := c.token
	if token == "" {
		// A supervisor of an earlier release has no key, and asks for none.
		if token, err = c.dir.key(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read the supervisor's control key: %w", err)
		}
	}
	// Before anything is said: one that is not there may be made by anybody until it is connected to.
	if err := c.dir.ownPlace(); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	} else if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("speak to the supervisor: %w", context.Cause(ctx))
		}
		return nil, fmt.Errorf("%w: nobody answers at %s (%w)", ErrNotRunning, c.dir.Socket(), err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		return nil, fmt.Errorf("the supervisor refuses: %s", strings.TrimSpace(string(text)))
	}
	if out == nil {
		return res.Header, nil
	}
	return res.Header, json.NewDecoder(res.Body).Decode(out)
}
