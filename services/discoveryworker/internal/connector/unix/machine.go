package unix

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// machine is what was read of a machine, and how to read more.
type machine struct {
	files
	root     string
	hostName string
	// fqdn is the canonical name, or hostName where it has none.
	fqdn      string
	addresses []*net.IPNet

	accounts []*account
	byName   map[string]*account
	groups   []*group
	shells   []string
}

func newMachine(root string) *machine {
	return &machine{files: disk{root}, root: root, byName: map[string]*account{}}
}

// here says that the machine is the one this process runs on.
func (m *machine) here() bool { return m.root == "/" }

// path is where a path of the machine lies.
func (m *machine) path(name string) string { return filepath.Join(m.root, name) }

// why is an error about a path in words: `/etc/shadow: permission denied`.
func why(name string, err error) string {
	if pathError, ok := errors.AsType[*fs.PathError](err); ok {
		err = pathError.Err
	}
	return fmt.Sprintf("%s: %v", name, err)
}

// notThere says that a file simply isn't there.
func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// commandError is a command that was run and failed.
type commandError struct {
	name, stderr string
	code         int
}

func (e *commandError) Error() string {
	return fmt.Sprintf("%s ended with %d: %s", e.name, e.code, strings.TrimSpace(e.stderr))
}

// run answers a command's standard output and standard error. The command sees a fixed locale and path and nothing else of this
// process's environment.
func run(ctx context.Context, stdin []byte, name string, args ...string) (stdout, stderr []byte, err error) {
	const path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	var found string
	for _, dir := range filepath.SplitList(path) {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			found = p
			break
		}
	}
	if found == "" {
		return nil, nil, fmt.Errorf("%s: %w in %s", name, exec.ErrNotFound, path)
	}
	cmd := exec.CommandContext(ctx, found, args...)
	cmd.Env = []string{"PATH=" + path, "LC_ALL=C"}
	cmd.Stdin = bytes.NewReader(stdin)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = &commandError{name: name, stderr: complaints.String(), code: exit.ExitCode()}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return out.Bytes(), complaints.Bytes(), err
}

// readFacts reads the machine's names and addresses, by which sudo decides whether a rule is meant for it, and its shells.
func (m *machine) readFacts(ctx context.Context) error {
	if m.here() {
		name, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("ask for the machine's name: %w", err)
		}
		m.hostName = name
		m.addresses = interfaceAddresses()
	} else if content, err := m.read("/etc/hostname"); err == nil {
		m.hostName = strings.TrimSpace(string(content))
	}
	m.fqdn = m.hostName
	if m.here() && m.hostName != "" {
		// As sudo does it: the canonical name that the resolver answers, and the name itself where it answers none.
		if out, _, err := run(ctx, nil, "getent", "ahosts", m.hostName); err == nil {
			line, _, _ := strings.Cut(string(out), "\n")
			if fields := strings.Fields(line); len(fields) == 3 {
				m.fqdn = fields[2]
			}
		}
	}
	m.shells = m.readShells()
	return ctx.Err()
}

// readShells answers the programs that open a shell.
func (m *machine) readShells() []string {
	content, err := m.read("/etc/shells")
	if err != nil {
		return []string{"/bin/sh", "/bin/bash"}
	}
	var shells []string
	for line := range strings.Lines(string(content)) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "/") {
			shells = append(shells, line)
		}
	}
	return shells
}

// interfaceAddresses answers the machine's addresses but loopback ones, which sudo doesn't match either.
func interfaceAddresses() []*net.IPNet {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []*net.IPNet
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
			out = append(out, n)
		}
	}
	return out
}
