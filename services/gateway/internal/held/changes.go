package held

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"google.golang.org/protobuf/encoding/protodelim"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"

	"a3os.app/libs/snapshot"
)

// mostChanges is how many octets of changes are kept before the snapshot is wanted whole again: a start reads all of them.
const mostChanges = 4 << 20

// changes is the file of what changed since the snapshot that came whole: signed changes, each with its length before it.
type changes struct {
	path string
	size int64
}

// read gives each change to take, in order. It ends at the first that can't be read or that take refuses, and forgets that one and
// what follows: the file goes on after what was good.
func (c *changes) read(take func(*registryv1.SignedSnapshotChange) error) error {
	f, err := os.OpenFile(c.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the changes of the snapshot: %w", err)
	}
	defer f.Close()
	counted := &counter{r: bufio.NewReader(f)}
	for {
		change := &registryv1.SignedSnapshotChange{}
		err := protodelim.UnmarshalOptions{MaxSize: snapshot.MaxBytes + frame}.UnmarshalFrom(counted, change)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			err = fmt.Errorf("%w: %w", snapshot.ErrMalformed, err)
		} else {
			err = take(change)
		}
		if err != nil {
			return errors.Join(err, f.Truncate(c.size))
		}
		c.size = counted.n
	}
}

// add appends a change, and says whether there are so many that the snapshot is wanted whole.
func (c *changes) add(signed *registryv1.SignedSnapshotChange) (full bool, err error) {
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return false, fmt.Errorf("open the changes of the snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// From where the last good one ended: what a killed or failed write left there is no change.
	if err := f.Truncate(c.size); err != nil {
		return false, fmt.Errorf("write a change of the snapshot: %w", err)
	}
	w := &counter{w: io.NewOffsetWriter(f, c.size)}
	if _, err := protodelim.MarshalTo(w, signed); err != nil {
		return false, fmt.Errorf("write a change of the snapshot: %w", err)
	}
	if err := f.Sync(); err != nil {
		return false, fmt.Errorf("write a change of the snapshot: %w", err)
	}
	c.size += w.n
	return c.size > mostChanges, nil
}

// drop forgets the changes, which are in the whole snapshot.
func (c *changes) drop() error {
	c.size = 0
	if err := os.Remove(c.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the changes of the snapshot: %w", err)
	}
	return nil
}

// counter counts the octets that pass.
type counter struct {
	r *bufio.Reader
	w io.Writer
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// ReadByte implements io.ByteReader.
func (c *counter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
