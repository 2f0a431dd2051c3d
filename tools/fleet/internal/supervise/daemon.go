package supervise

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"a3os.app/tools/fleet/internal/process"
)

// Daemon is the supervisor of one directory.
type Daemon struct {
	dir    Dir
	spawn  *spawner
	bounds *bounds
	doors  *doors
	// key opens the control socket.
	key string

	mu      sync.Mutex
	keepers map[string]*keeper
	// waiting are units that an earlier daemon kept and whose turn to be started again has not come. They are kept as those of keepers
	// are: told, dropped and written down. A name is in one of the two.
	waiting  map[string]Unit
	stopping bool

	// lanes let one change of a unit begin when the one before has ended.
	lanes lanes

	// turns counts changes of how units are.
	turns turns

	writing sync.Mutex
	// unitChanges counts changes of what is kept, unitsNoted is how many of them are written down.
	unitChanges atomic.Int64
	unitsNoted  int64
	// forgot is that nothing is to be kept any longer (forgetUnits).
	forgot bool
	finish context.CancelFunc
}

// Run is the daemon's life: it takes the directory for itself, starts again what it was keeping when it ended without being asked
// to, and serves its control socket until it is told to stop, or ctx ends. It returns when all that it started has ended.
func Run(ctx context.Context, dir Dir, programs Programs) error {
	unlock, err := dir.take(dir.lockFile())
	if err != nil {
		return err
	}
	defer unlock()
	syscall.Umask(0o077)
	if err := confineProcess(); err != nil {
		return err
	}
	// Children end before the thread that made them does.
	sctx, stopSpawning := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSpawning()
	ctx, finish := context.WithCancel(ctx)
	defer finish()
	key, err := dir.makeKey()
	if err != nil {
		return fmt.Errorf("make the control key: %w", err)
	}
	d := &Daemon{dir: dir, key: key, spawn: newSpawner(sctx), bounds: newBounds(dir), doors: &doors{open: map[string]door{}}, keepers: map[string]*keeper{}, waiting: map[string]Unit{}, finish: finish}
	if err := d.endLeftovers(); err != nil {
		return err
	}
	// Who goes last keeps the others; what it starts is given a number of its own.
	spare(os.Getpid(), keptLongest)
	// What a killed supervisor left, and what its processes left in it.
	_ = d.bounds.close()
	// Before anybody can ask: who drops one of them, or changes another, finds all of them kept.
	again := d.declareAgain()
	listener, err := d.listen(ctx)
	if err != nil {
		return err
	}
	self, err := process.Self()
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	if err := writeJSON(dir.daemonFile(), self); err != nil {
		return errors.Join(err, listener.Close())
	}
	server := &http.Server{Handler: d.handler(), ReadHeaderTimeout: 5 * time.Second} //nolint:contextcheck // a unit outlives who asked for it
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	slog.Info("supervising", "dir", dir)
	go d.startAgain(ctx, again)
	go d.watchWatcher(ctx, programs)
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	d.stopAll()
	if err := d.bounds.close(); err != nil {
		slog.Warn("cgroups stay behind", "error", err)
	}
	d.turns.end()
	// The answer to the one who asked goes out before the socket closes.
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	return errors.Join(err, server.Shutdown(cctx), remove(dir.processesFile(), dir.daemonFile()), dir.removeSocket())
}

// endLeftovers ends what an earlier daemon started and its death did not end, as may be where the kernel does not do that.
func (d *Daemon) endLeftovers() error {
	left, err := d.dir.Processes()
	if err != nil {
		return err
	}
	for _, p := range left {
		if err := p.Signal(syscall.SIGKILL); err != nil {
			return err
		}
	}
	return nil
}

func (d *Daemon) listen(ctx context.Context) (net.Listener, error) {
	socket := d.dir.Socket()
	if err := d.dir.makePlace(); err != nil {
		return nil, err
	}
	if err := remove(socket); err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen on the control socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("close the control socket to others: %w", err), l.Close())
	}
	return l, nil
}

// apply keeps a unit from now on, and says whether that changed anything. Of one that changed the process is replaced; one that waits is
// started now.
func (d *Daemon) apply(unit Unit) (bool, error) {
	if err := unit.validate(); err != nil {
		return false, err
	}
	defer d.lanes.enter(unit.Name)()
	d.mu.Lock()
	if d.stopping {
		d.mu.Unlock()
		return false, errors.New("the plane is stopping")
	}
	old := d.keepers[unit.Name]
	if old != nil && old.unit.same(unit) {
		d.mu.Unlock()
		old.retry()
		return false, nil
	}
	d.mu.Unlock()
	if old != nil {
		old.stop()
		<-old.done
		if unit.Listens == "" {
			d.doors.shut(unit.Name)
		}
	}
	d.mu.Lock()
	if d.stopping {
		d.mu.Unlock()
		return false, errors.New("the plane is stopping")
	}
	d.begin(unit)
	d.mu.Unlock()
	d.turns.next()
	return true, d.noteUnits()
}

// begin starts a unit and has it kept; d.mu is held.
func (d *Daemon) begin(unit Unit) {
	delete(d.waiting, unit.Name)
	d.keepers[unit.Name] = keep(context.Background(), unit, d.spawn, d.bounds, d.doors, d.noteProcesses, d.turns.next)
}

// drop stops a unit and keeps it no longer.
func (d *Daemon) drop(name string) (bool, error) {
	defer d.lanes.enter(name)()
	d.mu.Lock()
	k := d.keepers[name]
	_, waits := d.waiting[name]
	delete(d.keepers, name)
	delete(d.waiting, name)
	d.mu.Unlock()
	if k == nil && !waits {
		return false, nil
	}
	if k != nil {
		k.stop()
		<-k.done
	}
	d.turns.next()
	d.doors.shut(name)
	return true, d.noteUnits()
}

// stopAll stops everything, the last started first.
func (d *Daemon) stopAll() {
	d.mu.Lock()
	d.stopping = true
	byOrder := map[int][]*keeper{}
	for _, k := range d.keepers {
		byOrder[k.unit.Order] = append(byOrder[k.unit.Order], k)
	}
	d.mu.Unlock()
	orders := make([]int, 0, len(byOrder))
	for o := range byOrder {
		orders = append(orders, o)
	}
	slices.SortFunc(orders, func(a, b int) int { return cmp.Compare(b, a) })
	for _, o := range orders {
		for _, k := range byOrder[o] {
			k.stop()
		}
		for _, k := range byOrder[o] {
			<-k.done
		}
	}
}

// statuses are those that the caller may know.
func (d *Daemon) statuses(c caller, withoutMemory bool) []Status {
	type known struct {
		order int
		Status
	}
	var keepers []*keeper
	var all []known
	d.mu.Lock()
	for _, k := range d.keepers {
		if c.may(k.unit.Group, k.unit.Name) == nil {
			keepers = append(keepers, k)
		}
	}
	for _, u := range d.waiting {
		if c.may(u.Group, u.Name) == nil {
			all = append(all, known{u.Order, begins(u)})
		}
	}
	d.mu.Unlock()
	for _, k := range keepers {
		all = append(all, known{k.unit.Order, k.Status()})
	}
	slices.SortFunc(all, func(a, b known) int { return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.Name, b.Name)) })
	out := make([]Status, 0, len(all))
	for _, k := range all {
		if !withoutMemory && k.PID != 0 {
			k.Memory = process.Memory(k.PID)
		}
		out = append(out, k.Status)
	}
	return out
}

// handler is the control socket: whoever can open it is this user or root, and shows what they may.
func (d *Daemon) handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, do func(c caller, w http.ResponseWriter, r *http.Request)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			c, err := whoAsks(d.key, r, time.Now())
			if err != nil {
				http.Error(w, err.Error(), http.StatusUnauthorized)
				return
			}
			do(c, w, r)
		})
	}
	handle("GET /about", func(_ caller, w http.ResponseWriter, _ *http.Request) {
		answer(w, About{Protocol: protocol, UID: os.Geteuid(), Unbounded: d.bounds.why}, nil)
	})
	handle("GET /status", func(c caller, w http.ResponseWriter, r *http.Request) {
		turn := d.turns.await(r.Context(), r.URL.Query().Get(afterTurn))
		w.Header().Set(turnHeader, turn)
		answer(w, d.statuses(c, r.URL.Query().Has(withoutMemory)), nil)
	})
	handle("POST /units", func(c caller, w http.ResponseWriter, r *http.Request) {
		var u Unit
		err := readJSON(r.Body, &u)
		if err == nil {
			err = c.mayStart(u)
		}
		if err != nil {
			answer(w, nil, err)
			return
		}
		changed, err := d.apply(u) //nolint:contextcheck // a unit outlives who asked for it
		answer(w, changed, err)
	})
	handle("DELETE /units/{name...}", func(c caller, w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		group, _, _ := strings.Cut(name, "/")
		if err := c.may(group, name); err != nil {
			answer(w, nil, err)
			return
		}
		changed, err := d.drop(name)
		answer(w, changed, err)
	})
	handle("POST /stop", func(c caller, w http.ResponseWriter, _ *http.Request) {
		if !c.all {
			answer(w, nil, errors.New("a tenant's token can't stop the plane: use the plane's own"))
			return
		}
		d.stopAll()
		answer(w, true, d.forgetUnits())
		d.finish()
	})
	return mux
}

func answer(w http.ResponseWriter, value any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

func readJSON(from io.Reader, into any) error {
	const most = 1 << 20
	dec := json.NewDecoder(io.LimitReader(from, most))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

func writeJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, text, 0o600, renameio.WithTempDir(filepath.Dir(path)), renameio.IgnoreUmask()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func remove(paths ...string) error {
	var errs []error
	for _, p := range paths {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
