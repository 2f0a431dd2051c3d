package systemtest

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"a3os.app/libs/pgserver"
)

//go:embed testdata/movedclock.go
var movedClock []byte

// clock is the clock of a plane's processes, which a test moves: for everything in accessos, the standard library and all that it uses
// too, since package time itself is built otherwise, and for PostgreSQL, by libfaketime. Only what is measured, and not read from a clock,
// goes on as it was: a clock that is moved makes no time pass.
type clock struct {
	t    *testing.T
	dir  string
	file string
}

// newClock is a clock in a directory that everybody can walk through. It skips the test where PostgreSQL's can't be moved.
func newClock(t *testing.T, dir string) *clock {
	t.Helper()
	c := &clock{t: t, dir: dir, file: filepath.Join(dir, "clock")}
	c.library()
	c.set(0)
	return c
}

// set has the clock ahead by some time.
func (c *clock) set(ahead time.Duration) {
	c.t.Helper()
	next := c.file + ".next"
	const everybodys = 0o644
	err := errors.Join(os.WriteFile(next, fmt.Appendf(nil, "+%d\n", int64(ahead.Seconds())), everybodys), os.Chmod(next, everybodys), os.Rename(next, c.file))
	if err != nil {
		c.t.Fatal(err)
	}
}

// programs are those under test with accessos built to read this clock.
func (c *clock) programs() (dir string) {
	c.t.Helper()
	root, err := exec.CommandContext(c.t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		c.t.Fatal(err)
	}
	pkg := filepath.Join(strings.TrimSpace(string(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(pkg, "time.go"))
	if err != nil {
		c.t.Fatal(err)
	}
	reads := []byte("\tsec, nsec, mono := runtimeNow()\n")
	if bytes.Count(source, reads) != 1 {
		c.t.Fatalf("package time of this Go reads the clock otherwise than %q in one place: have testdata/movedclock.go laid in where it does", reads)
	}
	source = bytes.Replace(source, reads, append(bytes.Clone(reads), "\tsec += moved()\n"...), 1)
	// These names are the same each time, so that the build is kept.
	laid := filepath.Join(os.TempDir(), "a3-moved-clock")
	replace := map[string]string{}
	const private = 0o700
	if err := os.MkdirAll(laid, private); err != nil {
		c.t.Fatal(err)
	}
	for name, text := range map[string][]byte{"time.go": source, "movedclock.go": movedClock} {
		file := filepath.Join(laid, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			c.t.Fatal(err)
		}
		replace[filepath.Join(pkg, name)] = file
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		c.t.Fatal(err)
	}
	file := filepath.Join(c.dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		c.t.Fatal(err)
	}
	dir = filepath.Join(c.dir, "bin")
	built := filepath.Join(dir, "accessos")
	cmd := exec.CommandContext(c.t.Context(), "go", "build", "-overlay", file, "-o", built, "./services/accessos")
	cmd.Dir, cmd.Env = filepath.Join("..", ".."), append(os.Environ(), "GOWORK=", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("build accessos with a clock that moves: %v: %s", err, out)
	}
	program, err := os.ReadFile(built)
	if err != nil {
		c.t.Fatal(err)
	}
	const mark = "A3-MOVED-CLOCK "
	at := bytes.Index(program, []byte(mark))
	if at < 0 || bytes.Contains(program[at+len(mark):], []byte(mark)) || len(c.file) > len(mark)+100 {
		c.t.Fatalf("there is no one place for the clock's file %s in the program", c.file)
	}
	copy(program[at:], c.file+"\x00")
	c.put(built, program)
	for _, name := range []string{"fleet", "a3"} {
		program, err := os.ReadFile(filepath.Join(programs, name))
		if err != nil {
			c.t.Fatal(err)
		}
		c.put(filepath.Join(dir, name), program)
	}
	return dir
}

func (c *clock) put(file string, program []byte) {
	c.t.Helper()
	const executable = 0o755
	if err := os.WriteFile(file, program, executable); err != nil {
		c.t.Fatal(err)
	}
}

// library is libfaketime.
func (c *clock) library() string {
	c.t.Helper()
	for _, pattern := range []string{"/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			return found[0]
		}
	}
	c.t.Skip("libfaketime is not installed, and PostgreSQL's clock can't be moved: apt-get install faketime")
	return ""
}

// postgres is a directory of PostgreSQL's programs of which the server reads this clock.
func (c *clock) postgres() (dir string) {
	c.t.Helper()
	found, err := pgserver.Find(c.t.Context(), pgserver.Options{})
	if err != nil {
		c.t.Fatal(err)
	}
	dir = filepath.Join(c.dir, "pg")
	const walk = 0o755
	if err := errors.Join(os.Mkdir(dir, walk), os.Chmod(dir, walk)); err != nil {
		c.t.Fatal(err)
	}
	all, err := os.ReadDir(found.Dir)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, program := range all {
		if program.Name() == "postgres" {
			continue
		}
		if err := os.Symlink(filepath.Join(found.Dir, program.Name()), filepath.Join(dir, program.Name())); err != nil {
			c.t.Fatal(err)
		}
	}
	c.put(filepath.Join(dir, "postgres"), fmt.Appendf(nil,
		"#!/bin/sh\nexport LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=%s FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1\nexec %s \"$@\"\n",
		c.library(), c.file, filepath.Join(found.Dir, "postgres")))
	return dir
}

// told is the time that a process of a plane tells, by the answer of its own health.
func (p *plane) told(t *testing.T, process string) (time.Time, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.environment(t, process)["A3_OPS_LISTEN"]+"/healthz", http.NoBody)
	if err != nil {
		return time.Time{}, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return time.Time{}, err
	}
	defer res.Body.Close()
	return http.ParseTime(res.Header.Get("Date"))
}
