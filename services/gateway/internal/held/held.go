// Package held keeps the last good snapshot, in memory and on disk: one that came whole, and what changed of it since, each as it was
// signed. It promises that what routes by it never sees one that was not verified, that it never goes back, and that a gateway which
// starts with the registry away goes on from what it last held, also where its disk ended with it, if a copy is kept. A snapshot or a change that is refused changes nothing and raises an
// alarm. It relies on libs/snapshot to tell good from bad.
package held

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/google/renameio/v2"
	"google.golang.org/protobuf/proto"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/snapshot"
	"a3os.app/libs/workload"
	"a3os.app/services/gateway/internal/routes"
)

// ErrNone is returned while no snapshot was ever accepted.
var ErrNone = errors.New("no snapshot is held: the registry was never reached, and neither disk nor copy has one")

// Snapshot is the snapshot held.
type Snapshot struct {
	verifier *snapshot.Verifier
	path     string
	metrics  metrics

	changing sync.Mutex
	table    atomic.Pointer[routes.Table]
	changes  *changes
	// whole says that the next snapshot is to come whole: a change did not fit, or there are many by now.
	whole atomic.Bool
	// onDisk is the version that is on disk, and changed is told of each new one.
	onDisk  atomic.Int64
	changed chan struct{}
}

// Open makes the holder of the snapshot at path, and takes up what is there. That nothing is there is no error; that what is there
// is not good is an alarm and no error, for the registry may have a good one.
func Open(ctx context.Context, path string, verifier *snapshot.Verifier) (*Snapshot, error) {
	s := &Snapshot{verifier: verifier, path: path, changes: &changes{path: path + ".changes"}, changed: make(chan struct{}, 1)}
	var err error
	if s.metrics, err = newMetrics(s.Version, s.onDisk.Load); err != nil { //nolint:contextcheck // what is counted is counted for as long as the process lives
		return nil, err
	}
	signed, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = s.take(signed)
	}
	if err != nil {
		s.alarm(ctx, "the snapshot on disk is not good, waiting for the registry's", err)
		return s, nil
	}
	if err := s.changes.read(func(c *registryv1.SignedSnapshotChange) error {
		if err := s.takeChange(c); !errors.Is(err, snapshot.ErrOlder) {
			return err
		}
		return nil // it is in the whole one, which is newer
	}); err != nil {
		// What was good before it serves; the registry has the rest.
		s.whole.Store(true)
		s.alarm(ctx, "a change of the snapshot on disk is not good, what came before it serves", err)
	}
	s.onDisk.Store(s.Version())
	slog.InfoContext(ctx, "snapshot taken up from disk", "version", s.Version(), "routes", s.Table().Len())
	return s, nil
}

// WantsWhole says that the registry is to send the snapshot whole.
func (s *Snapshot) WantsWhole() bool { return s.whole.Load() }

// Table is what to route by; nil while there is none.
func (s *Snapshot) Table() *routes.Table { return s.table.Load() }

// Version is the version held; 0 while there is none.
func (s *Snapshot) Version() int64 {
	if t := s.table.Load(); t != nil {
		return t.Version
	}
	return 0
}

// Ready says why there is nothing to route by, or nil.
func (s *Snapshot) Ready() error {
	if s.table.Load() == nil {
		return ErrNone
	}
	return nil
}

// Accept takes up a snapshot, or refuses it with an alarm and keeps the one held. It is live before it is on disk, and stays live
// where the disk takes no writes; it is wanted whole once more then.
func (s *Snapshot) Accept(ctx context.Context, signed *registryv1.SignedSnapshot) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	before := s.Version()
	if err := s.take(signed); err != nil {
		s.alarm(ctx, "a snapshot was refused, the last good one is kept", err)
		return err
	}
	if s.Version() == before && !s.whole.Load() {
		return nil
	}
	slog.InfoContext(ctx, "snapshot taken up", "version", s.Version(), "routes", s.Table().Len())
	// The whole one first: changes that it has already are passed over by whoever starts between the two.
	err := write(s.path, signed)
	if err == nil {
		err = s.changes.drop()
	}
	s.written(ctx, err)
	// One that isn't on disk is wanted again until it is.
	s.whole.Store(err != nil)
	return nil
}

// written tells who keeps a copy that what is held is on disk, or everybody that it isn't.
func (s *Snapshot) written(ctx context.Context, err error) {
	if err != nil {
		slog.ErrorContext(ctx, "the snapshot could not be written: a restart would begin with the one before", "alarm", "snapshot_not_written", "error", err)
		return
	}
	s.onDisk.Store(s.Version())
	select {
	case s.changed <- struct{}{}:
	default: // it was told of one that it did not look at yet
	}
}

// AcceptChange takes up a change of the snapshot held, or refuses it with an alarm. After one that doesn't fit, and after one that isn't
// on disk, the snapshot is wanted whole.
func (s *Snapshot) AcceptChange(ctx context.Context, signed *registryv1.SignedSnapshotChange) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	from := s.Version()
	if err := s.takeChange(signed); err != nil {
		if !errors.Is(err, snapshot.ErrOlder) {
			s.whole.Store(true)
		}
		s.alarm(ctx, "a change of the snapshot was refused, the last good one is kept", err)
		return err
	}
	slog.InfoContext(ctx, "change of the snapshot taken up", "version", s.Version(), "routes", s.Table().Len())
	full, err := s.append(from, signed)
	s.written(ctx, err)
	s.whole.Store(full || err != nil)
	return nil
}

// append puts a change from a version on disk, and says whether there are so many that the snapshot is wanted whole. Where one before it
// isn't on disk it is not either: whoever starts would find a gap there, and nothing after it.
func (s *Snapshot) append(from int64, signed *registryv1.SignedSnapshotChange) (full bool, err error) {
	if end := s.onDisk.Load(); end != from {
		return false, fmt.Errorf("what is on disk ends with version %d, this change leads from %d", end, from)
	}
	return s.changes.add(signed)
}

func (s *Snapshot) takeChange(signed *registryv1.SignedSnapshotChange) error {
	before := s.table.Load()
	if before == nil {
		return fmt.Errorf("%w: none is held", snapshot.ErrGap)
	}
	change, err := s.verifier.VerifyChange(signed, before.Version)
	if err != nil {
		return err
	}
	table, err := routes.Apply(change, before)
	if err != nil {
		return fmt.Errorf("%w: %w", snapshot.ErrMalformed, err)
	}
	s.table.Store(table)
	return nil
}

func (s *Snapshot) take(signed *registryv1.SignedSnapshot) error {
	snap, err := s.verifier.Verify(signed, s.Version())
	if err != nil {
		return err
	}
	if snap.GetVersion() == s.Version() {
		return nil
	}
	table, err := routes.New(snap, s.table.Load())
	if err != nil {
		return fmt.Errorf("%w: %w", snapshot.ErrMalformed, err)
	}
	s.table.Store(table)
	return nil
}

func (s *Snapshot) alarm(ctx context.Context, message string, err error) {
	reason := reasonOf(err)
	s.metrics.refused(ctx, reason)
	slog.ErrorContext(ctx, message, "alarm", "snapshot_refused", "reason", reason, "held_version", s.Version(), "error", err)
}

// Resolve implements workload.Resolver by the present table.
func (s *Snapshot) Resolve(ctx context.Context, want workload.Identity) (string, error) {
	t := s.table.Load()
	if t == nil {
		return "", ErrNone
	}
	return t.Resolve(ctx, want)
}

// Roots implements workload.Anchors for tenants, by the present table.
func (s *Snapshot) Roots(d workload.TrustDomain) (*x509.CertPool, error) {
	t := s.table.Load()
	if t == nil {
		return nil, ErrNone
	}
	return t.Roots(d)
}

// frame is what the signature and the key's id add to a snapshot's own bytes, with room to spare.
const frame = 4 << 10

func read(path string) (*registryv1.SignedSnapshot, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("look for the snapshot: %w", err)
	}
	if info.Size() > snapshot.MaxBytes+frame {
		return nil, snapshot.ErrTooLarge
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the snapshot: %w", err)
	}
	signed := &registryv1.SignedSnapshot{}
	if err := proto.Unmarshal(raw, signed); err != nil {
		return nil, fmt.Errorf("%w: %w", snapshot.ErrMalformed, err)
	}
	return signed, nil
}

// write replaces the file as a whole: a gateway killed in the middle finds the snapshot before.
func write(path string, signed *registryv1.SignedSnapshot) error {
	raw, err := proto.Marshal(signed)
	if err != nil {
		return fmt.Errorf("encode the snapshot: %w", err)
	}
	if err := renameio.WriteFile(path, raw, 0o600); err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	return nil
}
