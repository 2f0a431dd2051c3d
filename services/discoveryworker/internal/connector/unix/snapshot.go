package unix

import (
	"errors"
	"io/fs"
	"syscall"
)

// Snapshot is what a machine reader saw of the files that only root reads, at one moment. It holds no password, hashed or not: of
// each there is whether it is set, empty or locked.
type Snapshot struct {
	// Read, Stat and Names are what reading a file, looking at a path and listing a directory answered, by path.
	Read  map[string]Content `json:"read"`
	Stat  map[string]About   `json:"stat"`
	Names map[string]Listing `json:"names"`
}

// Content is what reading a file answered.
type Content struct {
	Bytes []byte `json:"bytes,omitempty"`
	Fault *Fault `json:"fault,omitempty"`
}

// About is what looking at a path answered.
type About struct {
	Mode  fs.FileMode `json:"mode"`
	UID   uint32      `json:"uid"`
	GID   uint32      `json:"gid"`
	Fault *Fault      `json:"fault,omitempty"`
}

// Listing is what listing a directory answered.
type Listing struct {
	Names []string `json:"names,omitempty"`
	Fault *Fault   `json:"fault,omitempty"`
}

// Fault is an error that can be handed on: the system's number for it, or the reader's own reason for not reading.
type Fault struct {
	Errno  syscall.Errno `json:"errno,omitempty"`
	Reason string        `json:"reason,omitempty"`
}

// Error is the error in words.
func (f *Fault) Error() string {
	if f.Errno != 0 {
		return f.Errno.Error()
	}
	return f.Reason
}

// Is has a fault compare as the system's error does.
func (f *Fault) Is(target error) bool {
	return f.Errno != 0 && (target == f.Errno || f.Errno.Is(target)) //nolint:errorlint // it is what errors.Is asks
}

// faultOf is an error as a Fault; nil for nil.
func faultOf(err error) *Fault {
	if err == nil {
		return nil
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return &Fault{Errno: errno}
	}
	if fault, ok := errors.AsType[*Fault](err); ok {
		return fault
	}
	return &Fault{Reason: err.Error()}
}

// seen is a machine's files as a snapshot has them, and as they are on disk where it says nothing. What the reader would not read for a
// reason of its own is read from disk where this process may.
type seen struct {
	disk
	snapshot *Snapshot
}

func (s seen) read(name string) ([]byte, error) {
	c, ok := s.snapshot.Read[name]
	switch {
	case !ok:
		return s.disk.read(name)
	case c.Fault == nil:
		return c.Bytes, nil
	}
	return otherwise(c.Fault, func() ([]byte, error) { return s.disk.read(name) })
}

func (s seen) stat(name string) (info, error) {
	a, ok := s.snapshot.Stat[name]
	switch {
	case !ok:
		return s.disk.stat(name)
	case a.Fault == nil:
		return info{mode: a.Mode, uid: a.UID, gid: a.GID}, nil
	}
	return otherwise(a.Fault, func() (info, error) { return s.disk.stat(name) })
}

func (s seen) readDir(name string) ([]string, error) {
	l, ok := s.snapshot.Names[name]
	switch {
	case !ok:
		return s.disk.readDir(name)
	case l.Fault == nil:
		return l.Names, nil
	}
	return otherwise(l.Fault, func() ([]string, error) { return s.disk.readDir(name) })
}

// otherwise answers what disk says where the reader had a reason of its own, and that reason where disk says nothing.
func otherwise[T any](fault *Fault, disk func() (T, error)) (T, error) {
	var none T
	if fault.Errno != 0 {
		return none, fault
	}
	if found, err := disk(); err == nil || notThere(err) {
		return found, err
	}
	return none, fault
}
