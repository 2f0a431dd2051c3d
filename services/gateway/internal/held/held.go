// Package held keeps the last good snapshot, in memory and on disk. It promises that what routes by it never sees one that was not
// verified, that it never goes back, and that a gateway which starts with the registry away goes on from what it last held. A
// snapshot that is refused changes nothing and raises an alarm. It relies on libs/snapshot to tell good from bad.
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
var ErrNone = errors.New("no snapshot is held: the registry was never reached, and none is on disk")

// Snapshot is the snapshot held.
type Snapshot struct {
	verifier *snapshot.Verifier
	path     string
	metrics  metrics

	changing sync.Mutex
	table    atomic.Pointer[routes.Table]
}

// Open makes the holder of the snapshot at path, and takes up what is there. That nothing is there is no error; that what is there
// is not good is an alarm and no error, for the registry may have a good one.
func Open(ctx context.Context, path string, verifier *snapshot.Verifier) (*Snapshot, error) {
	s := &Snapshot{verifier: verifier, path: path}
	var err error
	if s.metrics, err = newMetrics(s.Version); err != nil {
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
	slog.InfoContext(ctx, "snapshot taken up from disk", "version", s.Version(), "routes", s.Table().Len())
	return s, nil
}

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
// where the disk takes no writes.
func (s *Snapshot) Accept(ctx context.Context, signed *registryv1.SignedSnapshot) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	before := s.Version()
	if err := s.take(signed); err != nil {
		s.alarm(ctx, "a snapshot was refused, the last good one is kept", err)
		return err
	}
	if s.Version() == before {
		return nil
	}
	slog.InfoContext(ctx, "snapshot taken up", "version", s.Version(), "routes", s.Table().Len())
	if err := write(s.path, signed); err != nil {
		slog.ErrorContext(ctx, "the snapshot could not be written: a restart would begin with the one before", "alarm", "snapshot_not_written", "error", err)
	}
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
