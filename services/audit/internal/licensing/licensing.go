// Package licensing keeps the set's licence: it takes what the control plane hands over when it is a good and a later one, keeps the
// newest time that the set has seen, and puts on the record what became of either. It promises that whatever is handed over and isn't
// a later licence of this tenant leaves the last good one, with an alarm and an event, once for each such file; and that a clock which
// was turned back is told, and not believed. It relies on package held for what a licence is worth.
package licensing

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	auditv1 "a3os.app/proto/gen/go/a3os/audit/v1"
	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/clip"
	"a3os.app/libs/id"
	"a3os.app/libs/licence"
	"a3os.app/libs/licence/held"
	"a3os.app/libs/pg"
	"a3os.app/libs/record"
	"a3os.app/libs/scope"

	"a3os.app/services/audit/internal/store"
)

// mostTold keeps what is told of a file short, which is anybody's.
const mostTold = 400

const (
	// tolerance is how far the clock may be behind what the set has seen before that is told: clocks are put right by seconds.
	tolerance = 5 * time.Minute
	// keepSeenEvery is how often the newest time is written: what a crash loses of it.
	keepSeenEvery = time.Minute
	// lookEvery is how often the state is looked at, whether or not there is a registry to report to.
	lookEvery = 10 * time.Second
	// beginEvery is how often the first look at the platform's file is tried again, and beginMost for how long the set doesn't serve for it:
	// what is not licensed is served whatever becomes of the licence.
	beginEvery = 500 * time.Millisecond
	beginMost  = 15 * time.Second
)

// errNotLooked says that what the platform laid down may be a licence that the set doesn't hold yet.
var errNotLooked = errors.New("the licence that was laid down was not looked at yet")

// Config is what a Keeper needs.
type Config struct {
	// DB is the pool of role_audit.
	DB *pg.DB
	// Held reads what is held.
	Held *held.Licence
	// Verifier opens what is handed over.
	Verifier *licence.Verifier
	// Tenant of the set.
	Tenant id.Tenant
	// Path is a file that the platform lays licences into; empty where it doesn't.
	Path string
	// Now is the clock.
	Now func() time.Time
}

// Keeper keeps the licence.
type Keeper struct {
	cfg Config

	mu sync.Mutex
	// elsewhere is the newest time that was read from others: the registry, and the log when the process started.
	elsewhere time.Time
	logRead   bool
	// file is what was last read from the platform's file.
	file []byte
	// refused is why the last file was refused; empty since one was taken.
	refused string
	// looked says that the platform's file was looked at since the process started.
	looked atomic.Bool
}

// New makes a Keeper.
func New(cfg Config) *Keeper { return &Keeper{cfg: cfg} }

// Ready is nil once what the platform laid down was looked at: until then a new set would refuse what its licence allows.
func (k *Keeper) Ready() error {
	if k.cfg.Path == "" || k.looked.Load() {
		return nil
	}
	return errNotLooked
}

// Run looks at the licence and the clock until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	k.begin(ctx)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if _, err := k.Look(ctx); err != nil && ctx.Err() == nil {
			slog.WarnContext(ctx, "the licence can't be looked at now, trying again", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		k.takeFile(ctx)
	}
}

// begin takes what the platform laid down before the process started.
func (k *Keeper) begin(ctx context.Context) {
	defer k.looked.Store(true)
	ctx, cancel := context.WithTimeout(ctx, beginMost)
	defer cancel()
	tick := time.NewTicker(beginEvery)
	defer tick.Stop()
	for !k.takeFile(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// takeFile takes what the platform laid down, once for each content: the control plane may have handed over a later one since. It answers
// whether it was looked at: of what is there and can't be read nothing more comes of waiting, of a database that is away it does.
func (k *Keeper) takeFile(ctx context.Context) (looked bool) {
	if k.cfg.Path == "" {
		return true
	}
	file, err := readBounded(k.cfg.Path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && bytes.Equal(file, k.file) {
		return true
	}
	if err != nil {
		slog.WarnContext(ctx, "the file that a licence is laid into can't be read", "file", k.cfg.Path, "error", err)
		return true
	}
	err = k.take(ctx, file, true)
	switch {
	case errors.Is(err, licence.ErrOlder):
		// It stays what it was while the registry brings later ones.
		slog.DebugContext(ctx, "the licence in the file is not the newest", "file", k.cfg.Path)
	case err != nil:
		slog.WarnContext(ctx, "the licence in the file was not taken", "file", k.cfg.Path, "error", err)
	}
	if err != nil && !isRefusal(err) {
		return false
	}
	k.file = file
	return true
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, licence.MaxBytes+1))
}

// isRefusal says that a file was looked at and refused, and won't be another time.
func isRefusal(err error) bool {
	return errors.Is(err, licence.ErrOlder) || errors.Is(err, licence.ErrMalformed) || errors.Is(err, licence.ErrSignature) ||
		errors.Is(err, licence.ErrPlane) || errors.Is(err, licence.ErrTenant)
}

// Heard is a time that another clock told: the registry's.
func (k *Keeper) Heard(at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if at.After(k.elsewhere) {
		k.elsewhere = at
	}
}

// Standing is how the licence stands.
type Standing struct {
	// Worth of the licence, by the later of the clock and what was seen.
	Worth licence.Worth
	// Next is a later licence that is held already and doesn't hold yet; nil for none.
	Next *registryv1.Licence
	// Now is the time that it was judged by.
	Now time.Time
	// Behind is the newest time that was seen where the clock is behind it by more than a few minutes; zero where it isn't.
	Behind time.Time
	// Refused says why the last file that was handed over was refused; empty where it was taken.
	Refused string
}

// Message says what the standing means, and what to do.
func (s Standing) Message() string {
	if s.Next == nil {
		return s.Worth.Message()
	}
	return fmt.Sprintf("%s The next one is here, and holds from %s.", s.Worth.Message(), licence.Day(s.Next.GetValidFrom().AsTime()))
}

// Report is the standing for the control plane.
func (s Standing) Report() *registryv1.LicenceReport {
	r := &registryv1.LicenceReport{Serial: s.Worth.Licence.GetSerial(), State: s.Worth.State, ClockBehind: !s.Behind.IsZero(), Refused: s.Refused, NextSerial: s.Next.GetSerial()}
	if s.Worth.Licence != nil {
		r.ValidUntil = s.Worth.Licence.GetValidUntil()
	}
	return r
}

// Look looks at the clock and the licence, keeps the newest time, and puts what changed on the record.
func (k *Keeper) Look(ctx context.Context) (Standing, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out Standing
	err := k.cfg.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		q := store.New(tx)
		if err := k.readLog(ctx, q); err != nil {
			return err
		}
		w, err := q.LicenceWatch(ctx)
		if err != nil {
			return err
		}
		held, seen, err := k.cfg.Held.Read(ctx, tx)
		if err != nil {
			return err
		}
		out = k.stand(held, seen)
		if quiet(w, out) && out.Now.Sub(seen) < keepSeenEvery {
			return nil
		}
		return k.tell(ctx, tx, out)
	})
	if err == nil {
		k.logRead = true
	}
	return out, err
}

// readLog takes the time of the newest event for seen, once in a process: it may be later than what a crash left as seen.
func (k *Keeper) readLog(ctx context.Context, q *store.Queries) error {
	if k.logRead {
		return nil
	}
	at, err := q.NewestEntryAt(ctx)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read when the newest event happened: %w", err)
	}
	if at.After(k.elsewhere) {
		k.elsewhere = at
	}
	return nil
}

func (k *Keeper) stand(held iter.Seq[*registryv1.Licence], seen time.Time) Standing {
	now := k.cfg.Now()
	newest := later(seen, k.elsewhere)
	s := Standing{Now: later(now, newest), Refused: k.refused}
	s.Worth = licence.Among(held, s.Now)
	if next := licence.Newest(held); next.GetSerial() != s.Worth.Licence.GetSerial() {
		s.Next = next
	}
	if now.Before(newest.Add(-tolerance)) {
		s.Behind = newest
	}
	return s
}

// quiet says that everything there is to tell was told.
func quiet(w store.AuditLicenceWatch, s Standing) bool {
	return cmp.Or(w.ToldState, neverAny) == told(s) && w.ToldBehind == !s.Behind.IsZero()
}

// neverAny is what is told of a set that never had a licence: nothing became of it.
const neverAny = "0 none"

// told is what a state is remembered by: each licence's states are told anew.
func told(s Standing) string {
	return fmt.Sprintf("%d %s", s.Worth.Licence.GetSerial(), licence.StateWord(s.Worth.State))
}

// tell puts on the record what changed, and keeps the newest time.
func (k *Keeper) tell(ctx context.Context, tx pgx.Tx, s Standing) error {
	q := store.New(tx)
	w, err := q.LockLicenceWatch(ctx)
	if err != nil {
		return err
	}
	if cmp.Or(w.ToldState, neverAny) != told(s) {
		if err := note(ctx, tx, "licence.state_changed", s.Worth.Licence, s.Report()); err != nil {
			return err
		}
		level := slog.LevelInfo
		if s.Worth.State != registryv1.LicenceState_LICENCE_STATE_VALID {
			level = slog.LevelWarn
		}
		slog.Log(ctx, level, s.Worth.Message(), "alarm", "licence_state", "state", licence.StateWord(s.Worth.State), "serial", s.Worth.Licence.GetSerial())
	}
	if behind := !s.Behind.IsZero(); w.ToldBehind != behind {
		action := "licence.clock_in_order"
		if behind {
			action = "licence.clock_turned_back"
			slog.ErrorContext(ctx, "the clock is behind a time that this set has seen: the licence is judged by that time. Put the clock right",
				"alarm", "clock_turned_back", "clock", k.cfg.Now(), "seen", s.Behind)
		}
		if err := note(ctx, tx, action, s.Worth.Licence, s.Report()); err != nil {
			return err
		}
	}
	if err := q.SetTold(ctx, store.SetToldParams{State: told(s), Behind: !s.Behind.IsZero(), Refusal: w.ToldRefusal}); err != nil {
		return err
	}
	return q.SetSeen(ctx, s.Now)
}

// Take takes a file that the control plane handed over. One that is no later licence of this tenant is refused with an error.
func (k *Keeper) Take(ctx context.Context, file []byte) error { return k.take(ctx, file, false) }

// take is Take; a file that lies where it was laid once is expected to grow old, and one that is handed over is not.
func (k *Keeper) take(ctx context.Context, file []byte, mayBeOld bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var refusal error
	err := k.cfg.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		refusal = nil
		q := store.New(tx)
		w, err := q.LockLicenceWatch(ctx)
		if err != nil {
			return err
		}
		held, _, err := k.cfg.Held.Read(ctx, tx)
		if err != nil {
			return err
		}
		have := licence.Newest(held)
		l, err := k.cfg.Verifier.OpenFor(ctx, k.cfg.Tenant, have.GetSerial(), file)
		if err == nil && l.GetSerial() == have.GetSerial() {
			if proto.Equal(l, have) {
				return nil
			}
			err = fmt.Errorf("the licence %s has the serial of the one that is held: %w", l.GetId(), licence.ErrOlder)
		}
		if err != nil {
			if refusal = err; mayBeOld && errors.Is(err, licence.ErrOlder) {
				return nil
			}
			return k.refuse(ctx, tx, w, have, file, err)
		}
		return k.install(ctx, tx, w, have, l, file)
	})
	switch {
	case err != nil:
		return fmt.Errorf("take a licence: %w", err)
	case refusal != nil && mayBeOld && errors.Is(refusal, licence.ErrOlder):
		return refusal
	case refusal != nil:
		k.refused = clip.Text(refusal.Error(), mostTold)
		return refusal
	}
	k.refused = ""
	return nil
}

// refuse puts a refusal on the record, once for each file.
func (k *Keeper) refuse(ctx context.Context, tx pgx.Tx, w store.AuditLicenceWatch, have *registryv1.Licence, file []byte, why error) error {
	sum := sha256.Sum256(file)
	if bytes.Equal(w.ToldRefusal, sum[:]) {
		return nil
	}
	slog.ErrorContext(ctx, "a licence was refused, the last good one is kept", "alarm", "licence_refused", "error", why, "serial", have.GetSerial())
	e := record.Event{Action: "licence.refused", Target: target(have), Reason: clip.Text(why.Error(), mostTold), Outcome: auditv1.Outcome_OUTCOME_DENIED}
	if have != nil {
		e.Before, e.After = have, have
	}
	if err := record.AppendUnknown(ctx, tx, string(scope.Workload(self)), e); err != nil {
		return err
	}
	return store.New(tx).SetTold(ctx, store.SetToldParams{State: w.ToldState, Behind: w.ToldBehind, Refusal: sum[:]})
}

// install keeps a licence. What was seen begins anew at the time it was issued, for who issued it has looked at a clock: a set whose
// clock once ran ahead comes back to its senses with the next licence.
func (k *Keeper) install(ctx context.Context, tx pgx.Tx, w store.AuditLicenceWatch, have, l *registryv1.Licence, file []byte) error {
	q := store.New(tx)
	now := k.cfg.Now()
	if err := q.InsertLicence(ctx, store.InsertLicenceParams{Serial: l.GetSerial(), File: file, InstalledAt: now}); err != nil {
		return fmt.Errorf("keep the licence: %w", err)
	}
	if err := q.SetSeen(ctx, later(now, l.GetIssuedAt().AsTime())); err != nil {
		return err
	}
	k.elsewhere = time.Time{}
	held, seen, err := k.cfg.Held.Read(ctx, tx)
	if err != nil {
		return err
	}
	// The event below tells its first state as well.
	s := k.stand(held, seen)
	if err := q.SetTold(ctx, store.SetToldParams{State: told(s), Behind: !s.Behind.IsZero(), Refusal: w.ToldRefusal}); err != nil {
		return err
	}
	slog.InfoContext(ctx, "a licence was taken", "serial", l.GetSerial(), "plan", l.GetPlan(), "valid_until", l.GetValidUntil().AsTime())
	e := record.Event{Action: "licence.installed", Target: l.GetId(), After: l}
	if have != nil {
		e.Before = have
	}
	return record.AppendUnknown(ctx, tx, string(scope.Workload(self)), e)
}

// File is the signed file of a licence that is held, and when it was taken.
func (k *Keeper) File(ctx context.Context, serial int64) ([]byte, *timestamppb.Timestamp, error) {
	var row store.LicenceFileRow
	err := k.cfg.DB.Service(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var err error
		row, err = store.New(tx).LicenceFile(ctx, serial)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the file of the licence: %w", err)
	}
	return row.File, timestamppb.New(row.InstalledAt), nil
}

// self is the service whose own work this is.
const self = "audit"

func note(ctx context.Context, tx pgx.Tx, action string, l *registryv1.Licence, after proto.Message) error {
	return record.AppendUnknown(ctx, tx, string(scope.Workload(self)), record.Event{Action: action, Target: target(l), After: after})
}

func target(l *registryv1.Licence) string {
	if l == nil {
		return "no licence"
	}
	return l.GetId()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
