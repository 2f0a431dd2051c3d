package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

// mostSecret bounds a secret's file, in bytes.
const mostSecret = 64 << 10

// readSecretFile reads a secret from a file that nobody but this process's user (or root) can read or write, and takes one line
// end from its end. Errors never hold the content.
func readSecretFile(name string) (string, error) {
	// O_NONBLOCK: a named pipe in the place of the file must not hang the start.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", sentence(err)
	}
	defer f.Close()
	// The open file is looked at, not its name, so that it can't be exchanged in between.
	info, err := f.Stat()
	if err != nil {
		return "", sentence(err)
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a regular file", name)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return "", fmt.Errorf("%s is open to others than its owner (mode %04o): chmod 600 %s", name, mode, name)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("%s belongs to uid %d, and this process runs as uid %d: give it to this user or to root", name, st.Uid, os.Geteuid())
	}
	b, err := io.ReadAll(io.LimitReader(f, mostSecret+1))
	if err != nil {
		return "", sentence(err)
	}
	if len(b) > mostSecret {
		return "", fmt.Errorf("%s is larger than %d KiB", name, mostSecret>>10)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if text == "" {
		return "", fmt.Errorf("%s is empty", name)
	}
	return text, nil
}

// sentence says what an operating system error means for whoever configures.
func sentence(err error) error {
	p, ok := errors.AsType[*fs.PathError](err)
	switch {
	case !ok:
		return err
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no file %s", p.Path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("this process (uid %d) may not read %s: it must belong to that user, mode 0600", os.Geteuid(), p.Path)
	default:
		return fmt.Errorf("%s: %w", p.Path, p.Err)
	}
}
