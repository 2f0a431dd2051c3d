package held

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"google.golang.org/protobuf/encoding/protodelim"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/blob"
	"a3os.app/libs/snapshot"
)

// Copy is where what is held outlives the disk that it is on: one object, whose tag says which content of it was seen.
type Copy interface {
	// Get reads it, at most so many octets. Errors: [blob.ErrNotFound].
	Get(ctx context.Context, most int64) (content []byte, tag string, err error)
	// Replace writes it in the place of the content with the tag, or of none where that is empty. It fails where another is there.
	Replace(ctx context.Context, content []byte, tag string) (string, error)
}

const (
	// mostCopy is a snapshot and all that changed of it, with one change more than are kept.
	mostCopy = 2*(snapshot.MaxBytes+frame) + mostChanges
	// copyEvery bounds how often what changes all the time is copied.
	copyEvery = time.Second

	firstCopyBackoff, mostCopyBackoff = 500 * time.Millisecond, 30 * time.Second
)

// KeepCopy takes the copy up where nothing is held yet, and from then on has it follow what is held, until ctx ends, whose error it returns. It is
// in nobody's way: what is held serves while no copy can be made, and a registry that answers first is heard first. A copy is believed as what
// is on disk is: each part of it by its signature.
func (s *Snapshot) KeepCopy(ctx context.Context, open func(context.Context) (Copy, error)) error {
	policy := retrypolicy.NewBuilder[any]().WithMaxRetries(math.MaxInt32).WithBackoff(firstCopyBackoff, mostCopyBackoff).WithJitterFactor(0.2).
		OnRetryScheduled(func(e failsafe.ExecutionScheduledEvent[any]) {
			slog.WarnContext(ctx, "the copy of the snapshot is not as what is held: a gateway that starts elsewhere would begin with the one before", "alarm", "snapshot_not_copied",
				"held_version", s.Version(), "next_try_in", e.Delay, "error", e.LastError())
		}).Build()
	keeper := &copyKeeper{held: s, open: open}
	for {
		if err := failsafe.With(policy).WithContext(ctx).Run(func() error { return keeper.once(ctx) }); err != nil && ctx.Err() == nil {
			return fmt.Errorf("keep a copy of the snapshot: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(copyEvery):
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.changed:
		}
	}
}

// copyKeeper has the copy follow what is held.
type copyKeeper struct {
	held *Snapshot
	open func(context.Context) (Copy, error)
	copy Copy
	// tag and version are of the content seen last; looked says that one was looked for.
	tag     string
	version int64
	looked  bool
}

// once takes the copy up or writes it, whichever is the newer.
func (k *copyKeeper) once(ctx context.Context) (err error) {
	if k.copy == nil {
		if k.copy, err = k.open(ctx); err != nil {
			return err
		}
	}
	if !k.looked {
		if err := k.look(ctx); err != nil && k.held.Version() == 0 {
			return err
		}
		// With something held it is as well to try to write where none could be read: one that is there is not written over.
	}
	content, version, err := k.held.packed()
	if err != nil || version <= k.version {
		return err
	}
	tag, err := k.copy.Replace(ctx, content, k.tag)
	if err != nil {
		k.looked = false // who else writes may hold what is newer
		return err
	}
	k.tag, k.version, k.looked = tag, version, true
	slog.InfoContext(ctx, "snapshot copied", "version", version)
	return nil
}

// look reads the copy, and takes it up where nothing is held. One that isn't good is of no version, and is written over.
func (k *copyKeeper) look(ctx context.Context) error {
	content, tag, err := k.copy.Get(ctx, mostCopy)
	if errors.Is(err, blob.ErrNotFound) {
		k.tag, k.version, k.looked = "", 0, true
		return nil
	}
	if err != nil {
		return err
	}
	k.tag, k.looked = tag, true
	k.version = k.held.takeCopy(ctx, content)
	return nil
}

// takeCopy answers the version of what is good of a copy, and takes it up where nothing is held.
func (s *Snapshot) takeCopy(ctx context.Context, content []byte) int64 {
	s.changing.Lock()
	defer s.changing.Unlock()
	into := s
	if s.Table() != nil {
		// Only its version is asked; what it would route to is of no interest.
		into = &Snapshot{verifier: s.verifier}
	}
	signed, changes, err := into.unpack(content)
	if err != nil {
		s.alarm(ctx, "the copy of the snapshot is not good, what came before serves", err)
	}
	if into == s && s.Table() != nil {
		slog.InfoContext(ctx, "snapshot taken up from its copy", "version", s.Version(), "routes", s.Table().Len())
		s.whole.Store(errors.Join(err, s.write(ctx, signed, changes)) != nil)
	}
	return into.Version()
}

// unpack takes up a copy as far as it is good, and answers the parts of it that were taken.
func (s *Snapshot) unpack(content []byte) (*registryv1.SignedSnapshot, []*registryv1.SignedSnapshotChange, error) {
	r := bufio.NewReader(bytes.NewReader(content))
	options := protodelim.UnmarshalOptions{MaxSize: snapshot.MaxBytes + frame}
	signed := &registryv1.SignedSnapshot{}
	if err := options.UnmarshalFrom(r, signed); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", snapshot.ErrMalformed, err)
	}
	if err := s.take(signed); err != nil {
		return nil, nil, err
	}
	var taken []*registryv1.SignedSnapshotChange
	for {
		change := &registryv1.SignedSnapshotChange{}
		err := options.UnmarshalFrom(r, change)
		if errors.Is(err, io.EOF) {
			return signed, taken, nil
		}
		if err != nil {
			return signed, taken, fmt.Errorf("%w: %w", snapshot.ErrMalformed, err)
		}
		if err := s.takeChange(change); err != nil {
			if errors.Is(err, snapshot.ErrOlder) {
				continue // it is in the whole one
			}
			return signed, taken, err
		}
		taken = append(taken, change)
	}
}

// write puts what was taken up from a copy on disk.
func (s *Snapshot) write(ctx context.Context, signed *registryv1.SignedSnapshot, changes []*registryv1.SignedSnapshotChange) error {
	err := errors.Join(write(s.path, signed), s.changes.drop())
	for _, c := range changes {
		if err == nil {
			_, err = s.changes.add(c)
		}
	}
	s.written(ctx, err)
	return err
}

// packed is what is on disk in one piece, and its version; 0 where nothing is.
func (s *Snapshot) packed() ([]byte, int64, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if s.onDisk.Load() == 0 {
		return nil, 0, nil
	}
	signed, err := read(s.path)
	if err != nil {
		return nil, 0, err
	}
	var out bytes.Buffer
	if _, err := protodelim.MarshalTo(&out, signed); err != nil {
		return nil, 0, fmt.Errorf("encode the snapshot: %w", err)
	}
	if s.changes.size > 0 {
		changes, err := os.ReadFile(s.changes.path)
		if err != nil {
			return nil, 0, fmt.Errorf("read the changes of the snapshot: %w", err)
		}
		out.Write(changes[:min(int64(len(changes)), s.changes.size)])
	}
	return out.Bytes(), s.onDisk.Load(), nil
}
