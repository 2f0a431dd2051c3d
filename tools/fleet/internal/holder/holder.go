// Package holder is how a process of this machine shows that it works under a lease, and how the next one knows that it is gone, so that it
// need not wait until the lease ends. What a process shows is written before it asks for any lease: between an answer of the registry and a
// note of it, whoever took the lease may be killed.
package holder

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"

	"a3os.app/tools/fleet/internal/process"
)

// Memory is a directory that knows the processes of this machine which asked for leases.
type Memory string

// shown is a process by what it shows. Its place is like no other's: machines have names in common, and processes numbers.
type shown struct {
	Place   string     `json:"place"`
	Process process.ID `json:"process"`
}

// self is this process.
var self = sync.OnceValues(func() (shown, error) {
	id, err := process.Self()
	if err != nil {
		return shown{}, err
	}
	host, err := os.Hostname()
	if err != nil {
		return shown{}, fmt.Errorf("ask for the host's name: %w", err)
	}
	const word = 8
	return shown{fmt.Sprintf("%s, process %d (%s)", host, id.PID, strings.ToLower(rand.Text()[:word])), id}, nil
})

// Place is where this process works, for people and for [Memory.Ended]: host, process, and a word of its own.
func (m Memory) Place() (string, error) {
	s, err := self()
	if err != nil {
		return "", err
	}
	if known, err := m.read(m.file(s.Process.PID)); err == nil && known == s {
		return s.Place, nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(string(m), 0o700); err != nil {
		return "", fmt.Errorf("make the directory of who works under leases: %w", err)
	}
	if err := m.prune(); err != nil {
		return "", err
	}
	return s.Place, renameio.WriteFile(m.file(s.Process.PID), text, 0o600, renameio.WithTempDir(string(m)))
}

// Secret is what shows a lease to be this process's. Whoever asks for the lease brings it: one that did not hear the answer asks again, and is
// told of the lease that it has.
func Secret() string {
	secret := make([]byte, sha256.Size)
	_, _ = rand.Read(secret) // never fails, since Go 1.24
	return base64.RawURLEncoding.EncodeToString(secret)
}

// Ended says whether a place is that of a process of this machine which is gone. Of a place that nobody here showed nothing is known.
func (m Memory) Ended(place string) bool {
	files, err := m.files()
	if err != nil {
		return false
	}
	for _, file := range files {
		if s, err := m.read(file); err == nil && s.Place == place {
			return !s.Process.Alive()
		}
	}
	return false
}

// prune forgets processes that are gone, and whose leases ended by themselves.
func (m Memory) prune() error {
	const ended = 10 * time.Minute
	files, err := m.files()
	if err != nil {
		return err
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if err != nil || time.Since(info.ModTime()) < ended {
			continue
		}
		if s, err := m.read(file); err == nil && s.Process.Alive() {
			continue
		}
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("forget a process that is gone: %w", err)
		}
	}
	return nil
}

func (m Memory) files() ([]string, error) { return filepath.Glob(m.name("*")) }

func (m Memory) file(pid int) string { return m.name(fmt.Sprint(pid)) }

func (m Memory) name(pid string) string { return filepath.Join(string(m), "process-"+pid+".json") }

func (Memory) read(file string) (s shown, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(text, &s)
}
