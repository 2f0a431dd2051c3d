// Package witness remembers what an audit log was when it was last verified: its verifier key and its newest checkpoint. A log that
// is cut short or rewritten by the holder of its key looks whole to everyone but who kept an earlier checkpoint. It promises that
// the memory is replaced whole; it relies on tlog for what a checkpoint proves.
package witness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Memory is what was seen of a log.
type Memory struct {
	// VerifierKey is the log's key (C2SP signed-note vkey).
	VerifierKey string
	// Checkpoint is the signed note; empty for a log that was empty.
	Checkpoint string
}

// File is where the memory of a profile's log lies.
func File(home, profile string) string { return filepath.Join(home, "audit", profile+".checkpoint") }

// Recall reads a memory: the key on the first line, the note after it. It answers nil where there is none.
func Recall(file string) (*Memory, error) {
	raw, err := os.ReadFile(file) //nolint:gosec // a file of this program
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // nothing is remembered
	}
	if err != nil {
		return nil, fmt.Errorf("read the remembered checkpoint: %w", err)
	}
	key, note, ok := strings.Cut(string(raw), "\n")
	if !ok || key == "" {
		return nil, fmt.Errorf("%s holds no checkpoint: if you did not change it, somebody else did", file)
	}
	return &Memory{VerifierKey: key, Checkpoint: note}, nil
}

// Remember writes a memory, in one step and readable by its owner alone.
func Remember(file string, m Memory) (err error) {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("remember the checkpoint: %w", err)
	}
	f, err := os.CreateTemp(dir, ".checkpoint.*")
	if err != nil {
		return fmt.Errorf("remember the checkpoint: %w", err)
	}
	_, err = f.WriteString(m.VerifierKey + "\n" + m.Checkpoint)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("remember the checkpoint: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
